// Decodes greedily in one of several ways, and says how long that took: `decode-loop` in JavaScript.

import { Model } from "pie:inferlet/models@0.1.0";
import { Context } from "pie:inferlet/contexts@0.1.0";
import { ForwardPass, generate, nextToken, submit } from "pie:inferlet/inference@0.1.0";
import { receive, send } from "pie:inferlet/session@0.1.0";

export function run(input) {
  const { way, prompt, new_tokens } = JSON.parse(input);
  const context = Context.create(Model.open(null));
  context.appendText(prompt);
  context.flush();
  // All programs begin to decode at the same time: when their client says so.
  send("ready");
  receive();
  const begun = Date.now();
  const tokens = ways[way](context, new_tokens);
  return JSON.stringify({ tokens, decode_s: (Date.now() - begun) / 1000 });
}

const ways = {
  generate(context, newTokens) {
    return chunks(context, newTokens, 0, () => {});
  },

  stream(context, newTokens) {
    return chunks(context, newTokens, 1, (chunk) => {
      send(JSON.stringify({ type: "delta", text: chunk.text }));
    });
  },

  relay(context, newTokens) {
    const generation = started(context, newTokens, 1);
    const { tokens } = generation.relay();
    generation[Symbol.dispose]();
    return Array.from(tokens);
  },

  steps(context, newTokens) {
    const tokens = [];
    while (tokens.length < newTokens) {
      tokens.push(nextToken(context, tokens.slice(-1), '{"temperature":0}'));
    }
    return tokens;
  },

  passes(context, newTokens) {
    const tokens = [];
    while (tokens.length < newTokens) {
      const forward = new ForwardPass(context);
      if (tokens.length) forward.input(tokens.slice(-1), null);
      forward.sample(0, '{"temperature":0}');
      const [pass] = submit([forward]);
      forward[Symbol.dispose]();
      tokens.push(pass.get()[0].val);
      pass[Symbol.dispose]();
    }
    return tokens;
  },
};

function started(context, newTokens, chunkTokens) {
  const options = { temperature: 0, ignore_eos: true, max_tokens: newTokens };
  return generate(
    context, JSON.stringify({ ...options, chunk_tokens: chunkTokens }), null, null);
}

function chunks(context, newTokens, chunkTokens, seen) {
  const generation = started(context, newTokens, chunkTokens);
  const tokens = [];
  for (let chunk = generation.next(); chunk !== null; chunk = generation.next()) {
    tokens.push(...chunk.tokens);
    seen(chunk);
  }
  generation[Symbol.dispose]();
  return tokens;
}
