"""The vectors that all packages share: arguments, replies, errors."""

import json
import math
import struct
import unittest

import kit
import vigie_redis
from vigie_redis import Client, _core, _errors


def load(name):
    with open(kit.VECTORS / f"{name}.json") as file:
        return json.load(file)


def argument(case):
    ((kind, value),) = case.items()
    return {"text": str, "bytes": bytes.fromhex, "integer": int}[kind](value)


def expected(value):
    """The value in Python's form, with texts as bytes."""
    kind = value["type"]
    if kind in ("string", "status", "verbatim"):
        return bytes.fromhex(value["hex"])
    if kind in ("array", "set", "push"):
        return [expected(item) for item in value["items"]]
    if kind == "map":
        return {hashable(expected(key)): expected(item) for key, item in value["entries"]}
    if kind == "nested":
        inner = expected(value["value"])
        for _ in range(value["depth"]):
            inner = [inner]
        return inner
    if kind == "error":
        return ("error", value["code"], bytes.fromhex(value["hex"]).decode("utf-8", "replace"))
    if kind in ("int", "bignum"):
        return int(value["value"])
    if kind == "double":
        return ("double", value["value"] if value["value"] == "nan" else value["bits"])
    return {"null": None, "bool": value.get("value") is True}[kind]


def hashable(key):
    if isinstance(key, dict):
        return tuple(hashable([*pair]) for pair in key.items())
    return tuple(map(hashable, key)) if isinstance(key, list) else key


def comparable(value):
    """What came, in the same form."""
    if isinstance(value, vigie_redis.Server):
        return ("error", value.code, str(value))
    if isinstance(value, float):
        return ("double", "nan" if math.isnan(value) else struct.pack(">d", value).hex())
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, tuple):
        return tuple(map(comparable, value))
    if isinstance(value, dict):
        return {comparable(key): comparable(item) for key, item in value.items()}
    return value


class Encoding(unittest.TestCase):
    def test_every_command_of_the_vectors(self):
        for case in load("encode")["commands"]:
            with self.subTest(case["name"]):
                words = [argument(one) for one in case["args"]]
                self.assertEqual(_core.encode([words]).hex(), case["resp"])

    def test_floats_are_the_shortest_text_that_gives_the_same_bits(self):
        for case in load("encode")["floats"]:
            with self.subTest(case["as"]):
                value = struct.unpack(">d", bytes.fromhex(case["bits"]))[0]
                sent = _core.encode([[value]]).split(b"\r\n")[2].decode()
                self.assertEqual(struct.pack(">d", float(sent)).hex(), case["bits"])
                digits = lambda text: len(text.lower().split("e")[0].replace(".", "").replace("-", "").strip("0"))
                self.assertLessEqual(digits(sent), digits(case["as"]))

    def test_every_other_kind_is_refused(self):
        for value in (None, True, False, object(), [1], {"a": 1}, {1}, (1,), 1j, print):
            with self.subTest(repr(value)), self.assertRaises(TypeError):
                _core.encode([["SET", "k", value]])


class Decoding(unittest.TestCase):
    def check(self, protocol, *options):
        server = kit.Scripted(*options)
        self.addCleanup(server.end)
        vectors = load("decode")
        with Client(server.told["uri"], options={"protocol": protocol}) as client:
            for case in vectors["replies"]:
                if case["protocol"] == protocol:
                    with self.subTest(case["name"]):
                        got = client.call("GET", f"reply:{case['name']}")
                        self.assertEqual(comparable(got), expected(case["value"]))
            for case in vectors["errors"]:
                if case.get("protocol", protocol) == protocol:
                    with self.subTest(case["name"]), self.assertRaises(vigie_redis.Server) as raised:
                        client.call("GET", f"reply:{case['name']}")
                    self.assertEqual((raised.exception.code, str(raised.exception)), (case["code"], case["message"]))

    def test_every_reply_of_protocol_3(self):
        self.check(3)

    def test_every_reply_of_protocol_2(self):
        self.check(2, "--resp2")


class Errors(unittest.TestCase):
    def setUp(self):
        self.vectors = load("errors")

    def test_every_status_of_the_library_has_its_class(self):
        listed = {case["status"]: case for case in self.vectors["statuses"]}
        statuses = _core.statuses()
        del statuses[0]
        self.assertEqual(set(listed), set(statuses))
        self.assertEqual(set(_errors.by_status), set(statuses))
        for status, case in listed.items():
            error = _errors.make(status, 0, "text", "", "", -1, 0, None)
            self.assertIsInstance(error, getattr(vigie_redis, case["class"]))
            self.assertEqual((error.name, case["name"]), (case["name"].removeprefix("VIGIE_ERR_"), statuses[status]))

    def test_the_classes_are_in_each_other_as_the_vectors_say(self):
        for case in self.vectors["classes"]:
            if case["parent"]:
                self.assertTrue(issubclass(getattr(vigie_redis, case["class"]), getattr(vigie_redis, case["parent"])), case)

    def test_a_status_of_a_newer_library_has_the_class_of_its_range(self):
        for case in self.vectors["ranges"]:
            self.assertIs(type(_errors.make(case["to"], 0, "text", "", "", -1, 0, None)), getattr(vigie_redis, case["class"]))

    def test_each_flag_is_a_field(self):
        for case in self.vectors["flags"]:
            error = _errors.make(-102, case["flag"], "text", "", "", -1, 0, None)
            self.assertEqual([one["field"] for one in self.vectors["flags"] if getattr(error, one["field"])], [case["field"]])
            self.assertEqual(isinstance(error, vigie_redis.MaybeExecuted), case["field"] == "maybe_executed")

    def test_every_known_word_of_a_server_has_its_class(self):
        self.assertEqual(set(vigie_redis.by_code), {case["code"] for case in self.vectors["server_codes"]})
        for case in self.vectors["server_codes"]:
            error = _errors.make(-400, 0, case["line"], case["code"], "", -1, 0, None)
            self.assertIs(type(error), getattr(vigie_redis, case["class"]))
            self.assertIsInstance(error, getattr(vigie_redis, case["parent"]))
        self.assertIs(type(_errors.make(-400, 0, "NEW word", "NEW", "", -1, 0, None)), vigie_redis.Server)


if __name__ == "__main__":
    unittest.main()
