"""MQTT packets: paho reads what is encoded here, what brokers send is read, the rest is malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from csms.mqtt.client import packets
from csms.mqtt.client.connection import publish_properties
from csms.mqtt.client.message import MqttMessage


def test_lengths_are_variable_byte_integers():
    cases = {0: b"\0", 127: b"\x7f", 128: b"\x80\x01", 16_383: b"\xff\x7f", 16_384: b"\x80\x80\x01"}
    assert {number: packets.variable_integer(number) for number in cases} == cases
    assert packets.variable_integer(268_435_455) == b"\xff\xff\xff\x7f"
    with pytest.raises(ValueError, match="too large"):
        packets.variable_integer(268_435_456)


@given(
    st.one_of(st.none(), st.integers(0, 2**32 - 1)),
    st.sampled_from([None, "application/json", "text/plain"]),
    st.lists(st.tuples(st.text(max_size=9), st.text(max_size=200)), max_size=5),
)
def test_properties_are_what_paho_encodes(expiry_s, content_type, user):
    user = [(name.replace("\0", ""), value.replace("\0", "")) for name, value in user]
    message = MqttMessage(topic="t", body=b"", expiry_s=expiry_s, content_type=content_type, user=user)
    ours = packets.publish_properties(expiry_s=expiry_s, content_type=content_type, user=user)
    read = Properties(PacketTypes.PUBLISH)
    read.unpack(packets.variable_integer(len(ours)) + ours)
    wanted = publish_properties(message)
    assert read.json() == (Properties(PacketTypes.PUBLISH) if wanted is None else wanted).json()


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_packets_are_split_however_they_arrive(bodies, step):
    stream = b"".join(b"\x40" + packets.variable_integer(len(body)) + body for body in bodies)
    came, rest = [], b""
    for first in range(0, len(stream), step):
        found, rest = packets.split(rest + stream[first : first + step])
        came += found
    assert [packet.body for packet in came] == bodies
    assert rest == b""


def test_a_length_without_an_end_is_malformed():
    with pytest.raises(packets.MqttDecodeError):
        packets.split(b"\x30\xff\xff\xff\xff\xff")


def test_acknowledgements_and_limits_are_read():
    (short,), _ = packets.split(b"\x40\x02\x01\x02")
    (long,), _ = packets.split(b"\x40\x04\x01\x02\x87\x00")
    assert packets.acknowledgement(short) == packets.Acknowledgement(258, 0)
    assert packets.acknowledgement(long) == packets.Acknowledgement(258, 0x87)
    # Receive maximum 20, an assigned identifier, a user property, maximum packet size 1000.
    limits = b"\x21\x00\x14" + b"\x12\x00\x01x" + b"\x26\x00\x01a\x00\x01b" + b"\x27\x00\x00\x03\xe8"
    body = b"\x00\x00" + packets.variable_integer(len(limits)) + limits
    (connack,), _ = packets.split(b"\x20" + packets.variable_integer(len(body)) + body)
    code, found = packets.connack(connack, v5=True)
    assert code == 0
    assert found[packets.RECEIVE_MAXIMUM] == 20
    assert found[packets.MAXIMUM_PACKET_SIZE] == 1000


@pytest.mark.parametrize("body", [b"", b"\x01"])
def test_an_acknowledgement_without_a_packet_identifier_is_malformed(body):
    with pytest.raises(packets.MqttDecodeError):
        packets.acknowledgement(packets.MqttPacket(packets.PUBACK, 0, body))


@pytest.mark.parametrize("properties", [b"\xff", b"\x05\x21", b"\x02\xf0\x00", b""])
def test_properties_that_do_not_fit_their_length_are_malformed(properties):
    with pytest.raises(packets.MqttDecodeError):
        packets.connack(packets.MqttPacket(packets.CONNACK, 0, b"\0\0" + properties + b"\xff"), v5=True)


def test_a_string_that_mqtt_cannot_carry_is_refused():
    with pytest.raises(ValueError, match="too long"):
        packets.text("x" * 65_536)
    with pytest.raises(UnicodeEncodeError):
        packets.text("\ud800")
