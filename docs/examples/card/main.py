import json

from inferlet import Constraint, Context, Model

CARD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def run(input: dict) -> dict:
    model = Model.open()
    card = Constraint.json_schema(model, CARD)
    question = f"Extract the name and the age as JSON: {input['text']}"
    with Context(model) as context:
        context.append(model.apply_chat_template([{"role": "user", "content": question}]))
        answer = context.generate(constraint=card, max_tokens=128, chunk_tokens=0).collect()
    if answer.finish_reason != "stop":
        return {"error": f"unfinished after {len(answer.tokens)} tokens"}
    return json.loads(answer.text)
