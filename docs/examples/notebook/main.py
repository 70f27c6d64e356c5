from inferlet import Arguments, storage


def run(input: dict) -> dict:
    arguments = Arguments(input)
    note = arguments.text("note", "")
    forget = arguments.boolean("forget", False)
    arguments.finish()

    if forget:
        for key in storage.keys("note/"):
            storage.delete(key)
    if note:
        number = len(storage.keys("note/"))
        storage.set(f"note/{number:06}", note)  # on the disk once this returns
    notes = [storage.get(key) or b"" for key in storage.keys("note/")]
    return {"notes": [text.decode() for text in notes]}
