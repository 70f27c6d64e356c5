from inferlet import Chat, Exhausted, Model, session

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds two numbers",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
                "required": ["a", "b"],
            },
        },
    }
]


def run(input: dict) -> dict:
    chat = Chat(Model.open(), tools=TOOLS)
    chat.user(input.get("question", "What is 17 plus 25?"))
    for _ in range(4):
        reply = chat.reply(max_tokens=64, temperature=0)
        if not reply.tool_calls:
            return {"answer": reply.text}
        for call in reply.tool_calls:
            session.send_event("tool_call", name=call.name, arguments=call.arguments)
            chat.tool(call, add(**call.arguments))
    raise Exhausted("no answer within four turns")


def add(a: float, b: float) -> float:
    return a + b
