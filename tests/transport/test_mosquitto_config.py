"""Access rules and settings as text: nobody has more than its own, and nothing can be smuggled in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aif.errors import AIFError, LocalProtocolError, RemoteProtocolError
from aif.transport.filters import matches
from aif.transport.mosquitto_config import (
    BrokerSettings,
    ChannelAccess,
    Member,
    access_rules,
    configuration,
)

CONTROLLER = "CN=controller,OU=controller"
LEFT, RIGHT, THIRD = (
    Member(name, f"CN={name},OU=device", f"CN=enrol.{name},OU=enrolment")
    for name in ("left", "right", "third")
)
NUMBER = ChannelAccess("aif/ch/Adding-1/count/number", "left", ("right",))
Rules = dict[str, list[tuple[str, str]]]


def parse(text: str) -> Rules:
    """Per user (access, filter), read as Mosquitto reads it: a rule belongs to the user line above it."""
    rules: Rules = {}
    user = ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "user":
            user = rest
            assert user not in rules, "a user has two blocks"
            rules[user] = []
        elif word == "topic":
            access, _, topic = rest.partition(" ")
            rules[user].append((access, topic))
        else:
            assert not line or line.startswith("#"), line
    return rules


def test_every_user_has_its_own_topics_and_no_others() -> None:
    assert parse(access_rules(CONTROLLER, [LEFT], [])) == {
        CONTROLLER: [
            ("read", "aif/dev/+/up/+"),
            ("read", "aif/att/+/evd"),
            ("read", "aif/enrol/+/req"),
            ("read", "aif/dev/+/announce"),
            ("write", "aif/att/+/req"),
            ("write", "aif/enrol/+/rsp"),
            ("write", "aif/dev/left/down/+"),
            ("write", "aif/dev/+/announce"),
        ],
        "CN=left,OU=device": [
            ("read", "aif/dev/left/down/+"),
            ("read", "aif/att/left/req"),
            ("write", "aif/dev/left/up/hello"),
            ("write", "aif/dev/left/up/status"),
            ("write", "aif/dev/left/up/report"),
            ("write", "aif/dev/left/up/log"),
            ("write", "aif/dev/left/up/result"),
            ("write", "aif/att/left/evd"),
        ],
        "CN=enrol.left,OU=enrolment": [
            ("read", "aif/enrol/enrol.left/rsp"),
            ("write", "aif/enrol/enrol.left/req"),
        ],
    }


NAMES = st.sampled_from(["left", "right", "third"])
CHANNELS = st.lists(
    st.builds(
        ChannelAccess,
        st.from_regex(r"aif/ch/[A-Z]-[1-9]/[a-c]/[x-z](/[a-c])?", fullmatch=True),
        NAMES,
        st.lists(NAMES, max_size=3).map(tuple),
    ),
    max_size=12,
)


@given(channels=CHANNELS, revoked=st.sets(NAMES))
def test_a_channel_is_written_by_its_producers_and_read_by_its_consumers(
    channels: list[ChannelAccess], revoked: set[str]
) -> None:
    members = [
        Member(m.device, m.user, m.enrolment_user, revoked=m.device in revoked) for m in (LEFT, RIGHT, THIRD)
    ]
    rules = parse(access_rules(CONTROLLER, members, channels))
    for topic in {c.topic for c in channels}:
        wanted = {(f"CN={c.source},OU=device", "write") for c in channels if c.topic == topic}
        wanted |= {
            (f"CN={d},OU=device", "read") for c in channels if c.topic == topic for d in c.destinations
        }
        gone = {f"CN={name},OU=device" for name in revoked}
        allowed = {
            (user, access) for user, lines in rules.items() for access, f in lines if matches(f, topic)
        }
        assert allowed == {(user, access) for user, access in wanted if user not in gone}
    assert not any(f"CN={name}," in user or f"CN=enrol.{name}," in user for user in rules for name in revoked)


@pytest.mark.parametrize(
    ("members", "channels", "error"),
    [
        ([LEFT], [NUMBER], LocalProtocolError),  # right is not of the site
        ([LEFT, LEFT], [], LocalProtocolError),
        ([LEFT, Member("other", LEFT.user, "CN=enrol.other,OU=enrolment")], [], LocalProtocolError),
        ([Member("other", CONTROLLER, "CN=enrol.other,OU=enrolment")], [], LocalProtocolError),
        ([Member("left", "a\ntopic readwrite #", "b")], [], LocalProtocolError),
        ([Member("left", "", "b")], [], LocalProtocolError),
        ([Member("+", "a", "b")], [], LocalProtocolError),
        ([Member("left/#", "a", "b")], [], LocalProtocolError),
        ([LEFT], [ChannelAccess("aif/ch/+/count/number", "left", ())], RemoteProtocolError),
        ([LEFT], [ChannelAccess("aif/ch/#", "left", ())], RemoteProtocolError),
        ([LEFT], [ChannelAccess("aif/ch/A/b/c\ntopic readwrite #", "left", ())], RemoteProtocolError),
        ([LEFT], [ChannelAccess("aif/dev/left/down/grant", "left", ())], LocalProtocolError),
    ],
)
def test_rules_that_would_let_in_more_are_refused(
    members: list[Member], channels: list[ChannelAccess], error: type[AIFError]
) -> None:
    with pytest.raises(error):
        access_rules(CONTROLLER, members, channels)


def test_the_settings_demand_certificates_and_bound_everything() -> None:
    lines = configuration(
        BrokerSettings(Path("/srv/site a/broker"), clients=5, account="mosquitto")
    ).splitlines()
    for wanted in (
        "listener 8883 127.0.0.1",
        "user mosquitto",
        "tls_version tlsv1.3",
        "require_certificate true",
        "use_subject_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        "crlfile /srv/site a/broker/revoked.pem",
        "acl_file /srv/site a/broker/access-rules",
        "set_tcp_nodelay true",
        "max_packet_size 1048576",
        "max_connections 10",
        "max_inflight_messages 100",
        "max_queued_messages 10000",
        "max_queued_bytes 33554432",
        "max_keepalive 60",
        "persistence false",
    ):
        assert wanted in lines
    assert sum(line.startswith("listener") for line in lines) == 1
    everywhere = configuration(BrokerSettings(Path("/srv"), clients=1, port=8884, bind=""))
    assert "listener 8884\n" in everywhere
    assert not any(line.startswith("user ") for line in everywhere.splitlines())


@pytest.mark.parametrize(
    "wrong",
    [
        {"folder": Path("relative")},
        {"folder": Path("/srv/a\nallow_anonymous true")},
        {"port": 0},
        {"port": 65_536},
        {"clients": 0},
        {"bind": "broker.example"},
        {"bind": "127.0.0.1\nallow_anonymous true"},
        {"account": "root\nallow_anonymous true"},
        {"account": "-x"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"folder": Path("/srv"), "clients": 1}
    with pytest.raises(LocalProtocolError):
        BrokerSettings(**{**good, **wrong})  # type: ignore[arg-type]  # that is what is tested
