from inferlet import Chat, Model


def run(input: dict) -> str:
    chat = Chat(Model.open())
    chat.user(input.get("question", "What is Pie?"))
    return chat.reply(max_tokens=64, temperature=0).text
