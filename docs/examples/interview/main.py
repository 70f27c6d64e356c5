from inferlet import Chat, Model, session


def run(input: dict) -> dict:
    chat = Chat(Model.open(), system=input.get("system"))
    for message in session.messages():  # until the client closes its side
        for piece in chat.user(str(message)).stream(max_tokens=64, temperature=0):
            session.send_event("delta", text=str(piece))
        session.send_event("done")
    return {"turns": len(chat.messages)}
