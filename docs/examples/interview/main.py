from inferlet import Chat, Model, session


def run(input: dict) -> dict:
    chat = Chat(Model.open(), system=input.get("system"))
    for message in session.messages():  # until the client closes its side
        chat.user(str(message)).relay(max_tokens=64, temperature=0)
        session.send_event("done")
    return {"turns": len(chat.messages)}
