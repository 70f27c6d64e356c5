// Says when it was entered, by its own clock, and waits to be told that it may end.
import { receive, send } from "pie:inferlet/session@0.1.0";

export function run(_input) {
  send(String(Date.now()));
  receive();
  return "null";
}
