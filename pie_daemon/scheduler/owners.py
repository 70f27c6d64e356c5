"""Whose work it is: the instance, its user, the root of its family, and what they may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pie_daemon.errors import PieError
from pie_daemon.scheduler.fairness import Clock, Share

if TYPE_CHECKING:
    from pie_daemon.scheduler.context import Context


class TokenBudget(Protocol):
    """Counts generated tokens; several instances may share one, so it locks by itself if needed."""

    def spend(self, num_tokens: int) -> bool:
        """Takes that many if they are left, else none."""
        ...

    def left(self) -> int | None:
        """None without a limit, and then for good."""
        ...


class Unlimited:
    def spend(self, num_tokens: int) -> bool:
        return True

    def left(self) -> int | None:
        return None


@dataclass(slots=True, eq=False)
class PageQuota:
    """Pages that one instance and everything it launched may hold together."""

    holder: str
    max_pages: int
    owners: set[Owner] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Owner:
    """One instance as the scheduler knows it."""

    name: str
    user_name: str
    root_name: str
    user: Share
    root: Share
    budget: TokenBudget
    quotas: list[PageQuota]
    is_limited: bool
    """By its budget."""
    contexts: dict[int, Context] = field(default_factory=dict)
    requests: set[int] = field(default_factory=set)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


@dataclass(slots=True, eq=False)
class Shares:
    """What users and families had so far, and page quotas: of one state, or of several together
    that hold the same lock."""

    users: dict[str, Share] = field(default_factory=dict)
    roots: dict[tuple[str, str], Share] = field(default_factory=dict)
    quotas: dict[str, PageQuota] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)


class OwnerTable:
    """Owners by name; users and roots live as long as one of their owners."""

    def __init__(self) -> None:
        self._owners: dict[str, Owner] = {}
        self.shares = Shares()

    def __len__(self) -> int:
        return len(self._owners)

    def add(
        self,
        name: str,
        user: str = "",
        root: str | None = None,
        budget: TokenBudget | None = None,
        max_kv_pages: int | Mapping[str, int] | None = None,
    ) -> Owner:
        """`root` is the first ancestor that no instance launched; None: the instance itself.

        `max_kv_pages` may name several holders, itself and ancestors, with the pages that each
        may hold together with its descendants.
        """
        if name in self._owners:
            raise PieError("already-exists", f"owner {name!r} is known already")
        root_name = name if root is None else root
        budget = Unlimited() if budget is None else budget
        owner = Owner(
            name=name,
            user_name=user,
            root_name=root_name,
            user=self.shares.users.setdefault(user, Share()),
            root=self.shares.roots.setdefault((user, root_name), Share()),
            budget=budget,
            quotas=self._quotas_of(name, max_kv_pages),
            is_limited=budget.left() is not None,
        )
        for quota in owner.quotas:
            quota.owners.add(owner)
        owner.user.num_owners += 1
        owner.root.num_owners += 1
        self._owners[name] = owner
        return owner

    def _quotas_of(
        self, name: str, max_kv_pages: int | Mapping[str, int] | None
    ) -> list[PageQuota]:
        if max_kv_pages is None:
            return []
        asked = {name: max_kv_pages} if isinstance(max_kv_pages, int) else max_kv_pages
        return [
            self.shares.quotas.setdefault(holder, PageQuota(holder, pages))
            for holder, pages in asked.items()
        ]

    def find(self, name: str) -> Owner | None:
        return self._owners.get(name)

    def remove(self, owner: Owner) -> None:
        del self._owners[owner.name]
        owner.user.num_owners -= 1
        owner.root.num_owners -= 1
        for quota in owner.quotas:
            quota.owners.discard(owner)
            if not quota.owners:
                del self.shares.quotas[quota.holder]
        if not owner.user.num_owners:
            del self.shares.users[owner.user_name]
        if not owner.root.num_owners:
            del self.shares.roots[owner.user_name, owner.root_name]
