"""The kill switch in the hands of a person: key first, then the journal, then waiting for what is on the wire.

What stops must work while half of the system does not: without Redis the journal stops, without the exchange both do.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from app.clock import Clock
from app.composition import kill_sources_here
from app.execution import drill, kill_settling, kill_status
from app.execution.kill import KillSwitch
from app.execution.kill_settling import Flight
from app.execution.kill_status import KillStatus
from app.job_safety import kill_key, kill_switch
from app.job_safety.errors import JobSafetyError, StoreUnavailableError
from app.job_safety.kill_key import KillKey
from app.job_safety.kill_switch import KillSource, KillState
from app.journal import kill_latches, meta
from app.journal.engine import Journal
from app.journal.kill_latches import Change, Changed
from app.observability.log import make_logger
from app.observability.recorder import Recorder
from app.settings import Settings, config_hash
from app.wiring import UNREADABLE_URL, connect_redis, open_journal, redis_url

KEY_TRIES: Final = 5
REDIS_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thrown:
    """What throwing the switch did. `changed` None: it stood so already. `flights`: what was on the wire then."""

    changed: Changed | None
    flights: Sequence[Flight]


@dataclass(slots=True, kw_only=True)
class Control:
    """The switch of one installation, for one action of `owner`. The journal is opened when it is needed."""

    owner: str
    settings: Settings
    clock: Clock
    key: KillKey | None
    redis_error: str
    record: Recorder
    _journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        """The journal.

        Raises:
            StoreUnavailableError: it does not answer.
        """
        if self._journal is None:
            try:
                journal = open_journal(self.settings)
            except (OSError, ValueError) as error:
                # The text of a library may quote the part of a URL that is a password.
                told = UNREADABLE_URL if isinstance(error, ValueError) else f"journal: {error}"
                raise StoreUnavailableError(told) from error
            settings = self.settings
            meta.claim(journal, account=settings.account, mode=settings.mode.value, now_ms=self.clock.now_ms())
            self._journal = journal
        return self._journal

    @property
    def switch(self) -> KillSwitch:
        """The switch, for the functions that change it."""
        return KillSwitch(
            journal=self.journal, key=self.key, read_here=kill_sources_here(self.settings), clock=self.clock,
            record=self.record, owner=self.owner, config_hash=config_hash(self.settings),
        )  # fmt: skip

    def status(self) -> KillStatus:
        """Return how the switch stands."""
        value, is_readable = self.read_key()
        with self.journal.read() as connection:
            here = kill_sources_here(self.settings)()
            return kill_status.look(connection, key=value, key_is_readable=is_readable, here=here)

    def read_key(self) -> tuple[str | None, bool]:
        """Return what the Redis key says, and whether it could be read."""
        if self.key is None:
            return None, False
        try:
            return self.key.read(), True
        except StoreUnavailableError as error:
            self.redis_error = str(error)
            return None, False

    def throw(self, state: KillState, *, by: str, reason: str) -> Thrown:
        """Hold the switch at `state`; return what that did. What it stops is stopped when this returns.

        Raises:
            StoreUnavailableError: the journal does not answer. The Redis key is set then, and stops new orders.
        """
        value, _ = self.read_key()
        named = kill_key.named(value)
        loosens = named is not None and named.rank > state.rank
        if not loosens:
            self._set_key(state)
        drill.end_if_overdue(self.switch)
        thrown = self._latch(state, by=by, reason=reason)
        if loosens:
            self._set_key(state)
        return thrown

    def release(self, sources: Sequence[KillSource], *, by: str, reason: str) -> list[Changed]:
        """Release the latches of `sources`, the Redis key's word with it; return what that did.

        Raises:
            StoreUnavailableError: a store does not answer.
        """
        with self.journal.read() as connection:
            latches = {latch.source: latch.state for latch in kill_latches.held(connection)}
        left = {source: state for source, state in latches.items() if source not in sources}
        self._restore_key(left, releases_key=KillSource.REDIS_KEY in sources)
        switch, changes = self.switch, []
        for source in sources:
            wish = Change(source=source, state=KillState.RUN, actor=by, reason=reason, config_hash=switch.config_hash)
            if (changed := switch.change(wish)) is not None:
                changes.append(changed)
        return changes

    def close(self) -> None:
        """Give the journal back."""
        if self._journal is not None:
            self._journal.close()

    def _latch(self, state: KillState, *, by: str, reason: str) -> Thrown:
        switch = self.switch
        wish = Change(source=KillSource.OPERATOR, state=state, actor=by, reason=reason, config_hash=switch.config_hash)
        with switch.journal.write() as connection:
            changed = kill_latches.change(connection, wish, now_ms=self.clock.now_ms())
            flights = kill_settling.in_flight(connection, state)
        switch.tell(wish, changed)
        return Thrown(changed=changed, flights=flights)

    def _set_key(self, state: KillState) -> None:
        """Have the key stop new orders at once, unless it says something as strict already."""
        if self.key is None:
            return
        try:
            for _ in range(KEY_TRIES):
                value = self.key.read()
                is_ours = value is None or kill_key.named(value) is not None
                said = kill_switch.parse(value)
                if value == state.value or (not is_ours and said.rank >= state.rank):
                    return
                if kill_key.is_of_a_person(value) and said is not KillState.RUN:
                    with suppress(StoreUnavailableError):
                        self.switch.mirror()  # what is written over now must not be forgotten
                if self.key.change(value, state.value):
                    return
        except StoreUnavailableError as error:
            self.redis_error = str(error)

    def _restore_key(self, left: dict[KillSource, KillState], *, releases_key: bool) -> None:
        if self.key is None:
            raise StoreUnavailableError(f"redis: {self.redis_error}")
        after = "false"
        if KillSource.REDIS_KEY in left:
            after = _word(left[KillSource.REDIS_KEY])
        if KillSource.OPERATOR in left:
            after = left[KillSource.OPERATOR].value
        for _ in range(KEY_TRIES):
            value = self.key.read()
            is_to_change = kill_key.named(value) is not None or (releases_key and kill_key.is_of_a_person(value))
            if not is_to_change or value == after or self.key.change(value, after):
                return


@contextmanager
def opened(settings: Settings, clock: Clock, *, owner: str, url: str | None = None) -> Iterator[Control]:
    """Yield the switch. Settings that do not fit together are no reason not to stop.

    Args:
        settings: Of the installation.
        clock: Now.
        owner: Who acts: `command line` or `HTTP`.
        url: Of Redis. None: as `settings` say, starting the private one if need be.
    """
    client, error = None, ""
    try:
        client = connect_redis(url or redis_url(settings, clock), timeout_s=REDIS_S)
    except (JobSafetyError, RedisError, OSError, ValueError) as failed:
        error = UNREADABLE_URL if isinstance(failed, ValueError) else str(failed)
    # What is done is told in words, and kept in the audit trail; the keeper logs the alert.
    log = make_logger(stream=io.StringIO())
    one = Control(
        owner=owner,
        settings=settings,
        clock=clock,
        key=None if client is None else KillKey(client, settings.guard.kill_switch_key),
        redis_error=error,
        record=Recorder(log, client, clock, mode=settings.mode.value, account=settings.account),
    )
    try:
        yield one
    finally:
        one.close()
        one.record.close()
        if client is not None:
            client.close()


def _word(state: KillState) -> str:
    return "true" if state is KillState.HALT else state.value.lower()
