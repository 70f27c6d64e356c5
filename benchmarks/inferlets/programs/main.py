"""Nine programs that are compared with clients doing the same work.

Each has its client in the file of the same name under benchmarks/questions/programs.
"""

from typing import Any

import agents
import decoding
import thoughts

from inferlet import InvalidArgument

PROGRAMS = {
    "react": agents.react,
    "codeact": agents.codeact,
    "swarm": agents.swarm,
    "tree": thoughts.tree,
    "graph": thoughts.graph,
    "skeleton": thoughts.skeleton,
    "prefix-tree": decoding.prefix_tree,
    "json": decoding.json_schema,
    "ngram": decoding.ngram,
}


def run(input: dict[str, Any]) -> dict[str, int]:
    """How many tokens were drawn by the program that `program` names."""
    program = PROGRAMS.get(input.pop("program", ""))
    if program is None:
        raise InvalidArgument(f"program: one of {', '.join(PROGRAMS)}")
    return {"num_tokens": program(**input)}
