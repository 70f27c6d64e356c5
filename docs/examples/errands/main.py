from inferlet import PieError, events, http


def run(input: dict) -> dict:
    waiting = {http.start("GET", url): url for url in input["urls"]}
    found = {}
    while waiting:
        for exchange in events.wait_any(list(waiting)):
            url = waiting.pop(exchange)
            try:
                response = exchange.response()
                found[url] = {"status": response.status, "size": len(response.content)}
            except PieError as error:
                found[url] = {"error": error.message}
    return found
