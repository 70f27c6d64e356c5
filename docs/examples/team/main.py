import json

from inferlet import Chat, Model, Timeout, messaging, runtime


def run(input: dict) -> dict | int:
    if "team" in input:
        return work(input["team"])
    return lead(input.get("questions", ["What is 2+3?", "What is Pie?"]), input.get("workers", 2))


def lead(questions: list[str], workers: int) -> dict:
    team = runtime.instance_id()  # topics of this run's own
    for question in questions:
        messaging.push(f"{team}/questions", question)
    children = [
        runtime.launch(runtime.program(), {"team": team}, deadline_s=60) for _ in range(workers)
    ]
    answers = {}
    with messaging.pull(f"{team}/answers") as arriving:
        while len(answers) < len(questions):
            message = arriving.next(timeout_s=60)
            if message is None:
                raise Timeout("no answer within a minute")
            answers.update(json.loads(message))
    for _ in children:
        messaging.push(f"{team}/questions", "")  # nothing is left
    return {"answers": answers, "answered": [child.result() for child in children]}


def work(team: str) -> int:
    """Answers questions until there is none left; how many it were."""
    done = 0
    with messaging.pull(f"{team}/questions") as questions:
        for question in questions:
            if not question:
                break
            chat = Chat(Model.open())
            reply = chat.user(question).reply(max_tokens=64, temperature=0)
            messaging.push(f"{team}/answers", json.dumps({question: reply.text}))
            done += 1
    return done
