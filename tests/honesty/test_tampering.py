"""Whatever is changed in what the product gave out is refused, in one and the same word.

Through the operations, decision and entry included: a batch is a thousand of them at a time.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keys import administration, operations
from keys.algorithms import ALGORITHMS, MessageType, Usage
from keys.errors import CannotDecrypt
from keys.gate import Item, Operation
from keys.gate.batches import Done
from keys.models import Key
from keys.operations.parts import SIGNATURE_LIMIT
from tests.honesty import reader
from tests.honesty.conftest import ENCRYPTING, SECRET_ENCRYPTING, Shop, offered, specs_for

CONTEXT = {"ward": "7", "patient": "Ä-12"}
TEXT = b"dose: 5 mg"
# A house's files and its root key are made once a test, whatever hypothesis tries in it.
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

contexts = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    max_size=4,
)


def encrypted(shop: Shop, key: Key, algorithm: str, text: bytes = TEXT, **more: Any) -> bytes:
    context = more.pop("context", CONTEXT)
    done = operations.encrypt(
        shop.caller, str(key.id), text, context=context, algorithm=algorithm, **more
    )
    return done.ciphertext


def each(
    shop: Shop, operation: Operation[..., Any], key: Key, items: Iterable[Item]
) -> Iterator[tuple[Item, Done[Any]]]:
    """Perform an operation on many items, by batches."""
    waiting = iter(items)
    while part := list(itertools.islice(waiting, 500)):
        yield from zip(part, operation.batch(shop.caller, str(key.id), part).items, strict=True)


def refuses(shop: Shop, key: Key, items: Sequence[Item]) -> None:
    """Whether every item is refused in the one word, and there were some."""
    assert items
    for item, done in each(shop, operations.decrypt, key, items):
        assert done.error is not None, f"{item} gave {done.result}"
        assert type(done.error) is CannotDecrypt, (item, done.error)
        assert (str(done.error), dict(done.error.extra)) == (CannotDecrypt.title, {}), item


def with_context(ciphertexts: Iterable[bytes], context: Any = None) -> list[Item]:
    return [
        Item((one,), {"context": CONTEXT if context is None else context}) for one in ciphertexts
    ]


def flipped(data: bytes, bits: Sequence[int] = (0, 3, 7), step: int = 1) -> Iterator[bytes]:
    """Yield `data` with single bits turned at every position, and with each byte's all."""
    for position in range(0, len(data), step):
        for mask in (*(1 << bit for bit in bits), 0xFF):
            yield data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def cut_and_grown(data: bytes, step: int = 1) -> Iterator[bytes]:
    """Yield every beginning and every end of `data`, and what is longer than it."""
    for length in range(0, len(data), step):
        yield data[:length]
        yield data[length + 1 :]
    for more in (b"\x00", b"\xff", data, bytes(16), bytes(1000)):
        yield data + more
        yield more + data


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_no_byte_of_a_ciphertext_can_be_changed(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    bits = (0, 3, 7) if algorithm in SECRET_ENCRYPTING else (5,)
    for text in (b"", TEXT):
        refuses(shop, key, with_context(flipped(encrypted(shop, key, algorithm, text), bits)))


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_no_ciphertext_can_be_shortened_or_lengthened(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    for text in (b"", TEXT):
        refuses(shop, key, with_context(cut_and_grown(encrypted(shop, key, algorithm, text))))


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_a_single_decryption_is_refused_in_the_same_word(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    made = encrypted(shop, key, algorithm)
    for changed in (made[:-1], made + b"x", *itertools.islice(flipped(made), 0, None, 37), b""):
        with pytest.raises(CannotDecrypt) as refused:
            operations.decrypt(shop.caller, str(key.id), changed, context=CONTEXT)
        assert str(refused.value) == refused.value.detail == CannotDecrypt.title
    entry = shop.house.last_entry(action="decrypt")
    assert (entry["outcome"], entry["reason"]) == ("failed", "cannot_decrypt")


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_only_the_same_context_decrypts(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    made = encrypted(shop, key, algorithm)
    others: list[dict[str, str]] = [
        {},
        {"ward": "7"},
        {"patient": "Ä-12"},
        {"ward": "8", "patient": "Ä-12"},
        {"ward": "7", "patient": "A\u0308-12"},
        {"ward": "7", "patient": "Ä-1", "more": "2"},
        {"ward": "7", "patient": "Ä-12", "more": ""},
        {"ward": "Ä-12", "patient": "7"},
        {"7": "ward", "Ä-12": "patient"},
        {"ward7": "", "patient": "Ä-12"},
        {"war": "d7", "patient": "Ä-12"},
        {"Ward": "7", "patient": "Ä-12"},
        {"ward ": "7", "patient": "Ä-12"},
        {"wardpatient": "7Ä-12"},
    ]
    for other in others:
        refuses(shop, key, with_context([made], other))
    shuffled = dict(reversed(list(CONTEXT.items())))
    opened = operations.decrypt(shop.caller, str(key.id), made, context=shuffled)
    assert opened.plaintext.reveal() == TEXT


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_another_key_or_version_decrypts_nothing(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    other = shop.fresh(key.algorithm, Usage.ENCRYPT_DECRYPT, key.spec)
    first = encrypted(shop, key, algorithm)
    administration.rotate_key(shop.house.olga, str(key.id))
    second = encrypted(shop, key, algorithm)
    refuses(shop, other, with_context([first, second]))
    # Its own header before the other's body, and another version's number in the header.
    foreign = encrypted(shop, other, algorithm)
    refuses(shop, other, with_context([foreign[:23] + first[23:]]))
    moved = [first[:19] + number.to_bytes(4, "big") + first[23:] for number in (0, 2, 3, 2**32 - 1)]
    moved.append(second[:19] + first[19:23] + second[23:])
    refuses(shop, key, with_context(moved))
    for made in (first, second):
        opened = operations.decrypt(shop.caller, str(key.id), made, context=CONTEXT)
        assert opened.plaintext.reveal() == TEXT


def fields(algorithm: str, data: bytes) -> dict[str, slice]:
    """Return where a ciphertext's parts are."""
    found = {"algorithm": slice(2, 3), "key id": slice(3, 19), "version": slice(19, 23)}
    if algorithm.startswith("RSAES"):
        half = (23 + len(data)) // 2
        return found | {"first half": slice(23, half), "second half": slice(half, len(data))}
    at = 23 + reader.NONCES[algorithm]
    if at > 23:
        found["nonce"] = slice(23, at)
    if algorithm == "XAES_256_GCM":
        found["commitment"], at = slice(at, at + 32), at + 32
    if algorithm == "AES_SIV_CMAC_512":
        return found | {"tag": slice(23, 39), "data": slice(39, len(data))}
    return found | {
        "data": slice(at, len(data) - 16),
        "tag": slice(len(data) - 16, len(data)),
    }


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_no_field_can_be_swapped_between_two_ciphertexts(shop: Shop, algorithm: str) -> None:
    """Every set of fields, from the same key and version, another version, and another key."""
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    other = shop.fresh(key.algorithm, Usage.ENCRYPT_DECRYPT, key.spec)
    one, two = (encrypted(shop, key, algorithm, text) for text in (b"0123456789", b"abcdefghij"))
    administration.rotate_key(shop.house.olga, str(key.id))
    administration.rotate_key(shop.house.olga, str(other.id))
    later = encrypted(shop, key, algorithm, b"ABCDEFGHIJ")
    foreign = encrypted(shop, other, algorithm, b"----------")
    mixed: set[bytes] = set()
    for left, right in itertools.permutations((one, two, later, foreign), 2):
        parts = fields(algorithm, left)
        for count in range(1, len(parts)):
            for names in itertools.combinations(parts, count):
                made = bytearray(left)
                for name in names:
                    made[parts[name]] = right[parts[name]]
                mixed.add(bytes(made))
    mixed -= {one, two, later, foreign}
    assert len(mixed) > 30
    refuses(shop, key, with_context(sorted(mixed)))
    refuses(shop, other, with_context(sorted(mixed)))


def test_the_algorithm_of_a_header_is_no_choice_of_whoever_writes_it(shop: Shop) -> None:
    """Every code before every key's good body: RSA keys do all OAEP, and the code is bound too."""
    for algorithm in ENCRYPTING:
        key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
        made = encrypted(shop, key, algorithm)
        changed = [made[:2] + bytes([code]) + made[3:] for code in range(256) if code != made[2]]
        refuses(shop, key, with_context(changed))


@pytest.mark.parametrize("algorithm", [a for a in ENCRYPTING if a.startswith("RSAES")])
def test_the_two_forms_of_rsa_ciphertexts_never_pass_for_each_other(
    shop: Shop, algorithm: str
) -> None:
    key, caller = shop.key(algorithm, Usage.ENCRYPT_DECRYPT), shop.caller
    made = encrypted(shop, key, algorithm, context={})
    bare = operations.encrypt(caller, str(key.id), TEXT, algorithm=algorithm, raw=True).ciphertext
    refuses(shop, key, with_context([made[:23] + bare, bare], {}))
    items = [
        Item((data,), {"raw": True, "algorithm": algorithm})
        for data in (made, made[23:], *flipped(bare, (2,)), *cut_and_grown(bare))
    ]
    items += [
        Item((bare,), {"raw": True, "algorithm": other})
        for other in ENCRYPTING
        if other.startswith("RSAES") and other != algorithm
    ]
    refuses(shop, key, items)
    opened = operations.decrypt(caller, str(key.id), bare, algorithm=algorithm, raw=True)
    assert opened.plaintext.reveal() == TEXT


@pytest.mark.parametrize("tries", [15, pytest.param(60, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_what_was_encrypted_decrypts_to_the_same(shop: Shop, algorithm: str, tries: int) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    most = 190 if algorithm in SECRET_ENCRYPTING else 62

    @settings(max_examples=tries, deadline=None, suppress_health_check=SHARED)
    @given(st.binary(max_size=most), contexts)
    def round_trip(text: bytes, context: dict[str, str]) -> None:
        made = encrypted(shop, key, algorithm, text, context=context)
        opened = operations.decrypt(shop.caller, str(key.id), made, context=context)
        assert opened.plaintext.reveal() == text

    round_trip()


@pytest.mark.parametrize("algorithm", SECRET_ENCRYPTING)
def test_texts_of_all_sizes_up_to_the_limit_come_back(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    sizes = [0, *(2**n + d for n in range(17) for d in (-1, 0, 1) if 2**n + d <= 65536)]
    overhead = {len(encrypted(shop, key, algorithm, bytes(size))) - size for size in sizes}
    assert overhead == {len(encrypted(shop, key, algorithm, b""))}
    texts = [(bytes(range(256)) * 257)[:size] for size in sizes]
    items = [Item((text,), {"context": CONTEXT}) for text in texts]
    made = [done.result.ciphertext for _, done in each(shop, operations.encrypt, key, items)]
    opened = each(shop, operations.decrypt, key, with_context(made))
    assert [done.result.plaintext.reveal() for _, done in opened] == texts


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_equal_texts_give_equal_ciphertexts_only_where_the_table_says_so(
    shop: Shop, algorithm: str
) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    made = {encrypted(shop, key, algorithm) for _ in range(20)}
    assert len(made) == (1 if ALGORITHMS[algorithm].deterministic else 20)
    assert encrypted(shop, key, algorithm, context={}) not in made


# --- signatures and MACs


SIGNING = [
    (row.name, spec.name) for row in offered(Usage.SIGN_VERIFY) for spec in specs_for(row.name)
]
SMALL = [pair for pair in SIGNING if not pair[0].startswith(("SLH_DSA", "ML_DSA"))]
# Signatures with thousands of bytes: some positions always, all of them where there is time.
LARGE = [pair for pair in SIGNING if pair not in SMALL]
STEPS = [(997, 128), pytest.param((1, 1), marks=pytest.mark.exhaustive, id="every byte")]


def holds(shop: Shop, algorithm: str, spec: str, steps: tuple[int, int] = (1, 1)) -> None:
    """Change a signature at every so many bytes (SLH-DSA's, others'), and its message: none is valid."""
    key = shop.key(algorithm, Usage.SIGN_VERIFY, spec)
    made = operations.sign(shop.caller, str(key.id), TEXT, algorithm=algorithm).signature
    hashed = algorithm.startswith("SLH_DSA")  # some 150,000 bytes in all, at milliseconds each
    step, named = steps[not hashed], {"algorithm": algorithm}
    bits, cuts = ((), 64 * step) if hashed else ((0, 6), 2 * step)
    changed = itertools.chain(flipped(made, bits, step), cut_and_grown(made, cuts))
    messages = [*flipped(TEXT, (1,)), b"", TEXT[:-1], TEXT + b"\x00"]
    items = itertools.chain(
        (Item((TEXT, one), named) for one in changed if len(one) <= SIGNATURE_LIMIT),
        (Item((one, made), named) for one in messages),
    )
    for item, done in each(shop, operations.verify, key, items):
        assert done.error is None, (item, done.error)
        assert done.result.valid is False, item
    assert operations.verify(shop.caller, str(key.id), TEXT, made, algorithm=algorithm).valid


@pytest.mark.parametrize(("algorithm", "spec"), SMALL)
def test_no_byte_of_a_signature_or_its_message_can_be_changed(
    shop: Shop, algorithm: str, spec: str
) -> None:
    holds(shop, algorithm, spec)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("algorithm", "spec"), LARGE)
def test_no_byte_of_a_large_signature_or_its_message_can_be_changed(
    shop: Shop, algorithm: str, spec: str, steps: tuple[int, int]
) -> None:
    holds(shop, algorithm, spec, steps)


def test_a_signature_is_by_one_key_and_one_algorithm(shop: Shop) -> None:
    quick = [pair for pair in SIGNING if not pair[0].endswith(("S", "192F", "256F"))]
    for algorithm, spec in quick:
        key = shop.key(algorithm, Usage.SIGN_VERIFY, spec)
        made = operations.sign(shop.caller, str(key.id), TEXT, algorithm=algorithm).signature
        others = [
            (other, shop.key(other, Usage.SIGN_VERIFY, of))
            for other, of in quick
            if (other, of) != (algorithm, spec)
        ]
        for other, foreign in others[:: max(1, len(others) // 6)]:
            done = operations.verify(shop.caller, str(foreign.id), TEXT, made, algorithm=other)
            assert not done.valid, (algorithm, spec, other, foreign.spec)


def test_a_signature_over_a_message_is_none_over_its_digest_as_a_message(shop: Shop) -> None:
    for algorithm, spec in SIGNING:
        if MessageType.DIGEST not in ALGORITHMS[algorithm].messages:
            continue
        key = str(shop.key(algorithm, Usage.SIGN_VERIFY, spec).id)
        digest = hashlib.new(ALGORITHMS[algorithm].digest, TEXT).digest()
        named = {"algorithm": algorithm}
        by_message = operations.sign(shop.caller, key, TEXT, **named).signature
        by_digest = operations.sign(
            shop.caller, key, digest, message_type="digest", **named
        ).signature
        for made in (by_message, by_digest):
            as_message = operations.verify(shop.caller, key, TEXT, made, **named)
            as_digest = operations.verify(
                shop.caller, key, digest, made, message_type="digest", **named
            )
            confused = operations.verify(shop.caller, key, digest, made, **named)
            assert (as_message.valid, as_digest.valid, confused.valid) == (True, True, False)


@pytest.mark.parametrize("algorithm", [row.name for row in offered(Usage.GENERATE_VERIFY_MAC)])
def test_no_byte_of_a_mac_or_its_message_can_be_changed(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.GENERATE_VERIFY_MAC)
    other = shop.fresh(algorithm, Usage.GENERATE_VERIFY_MAC)
    made = operations.mac(shop.caller, str(key.id), TEXT).mac
    items = [Item((TEXT, one), {}) for one in (*flipped(made), *cut_and_grown(made))]
    items += [Item((one, made), {}) for one in (*flipped(TEXT), *cut_and_grown(TEXT))]
    for item, done in each(shop, operations.verify_mac, key, items):
        assert done.error is None, (item, done.error)
        assert done.result.valid is False, item
    assert operations.verify_mac(shop.caller, str(key.id), TEXT, made).valid
    assert not operations.verify_mac(shop.caller, str(other.id), TEXT, made).valid


# --- wrapped keys and encapsulated secrets


@pytest.mark.parametrize("algorithm", [row.name for row in offered(Usage.WRAP_UNWRAP)])
def test_no_byte_of_a_wrapped_key_can_be_changed(shop: Shop, algorithm: str) -> None:
    spec = "RSA_2048" if "RSA" in algorithm else ""
    key = shop.key(algorithm, Usage.WRAP_UNWRAP, spec)
    other = shop.fresh(key.algorithm, Usage.WRAP_UNWRAP, key.spec)
    made = operations.wrap_key(shop.caller, str(key.id), TEXT, algorithm=algorithm).wrapped_key
    changed = [*flipped(made, (5,)), *cut_and_grown(made)]
    items = [Item((one,), {"algorithm": algorithm}) for one in changed]
    for item, done in each(shop, operations.unwrap_key, key, items):
        assert type(done.error) is CannotDecrypt, (item, done.result, done.error)
        assert str(done.error) == CannotDecrypt.title
    with pytest.raises(CannotDecrypt):
        operations.unwrap_key(shop.caller, str(other.id), made, algorithm=algorithm)
    opened = operations.unwrap_key(shop.caller, str(key.id), made, algorithm=algorithm)
    assert opened.key_material.reveal() == TEXT


KEMS = [spec.name for row in offered(Usage.KEY_ENCAPSULATION) for spec in specs_for(row.name)]


@pytest.mark.parametrize("spec", KEMS)
def test_a_changed_encapsulation_gives_another_secret_and_a_wrong_length_none(
    shop: Shop, spec: str
) -> None:
    algorithm = "X_WING" if spec == "X_WING" else "ML_KEM"
    key = shop.key(algorithm, Usage.KEY_ENCAPSULATION, spec)
    made = operations.encapsulate(shop.caller, str(key.id))
    right = made.shared_secret.reveal()
    # The highest bit of an X25519 value is ignored (RFC 7748, 5), but X-Wing hashes the bytes sent.
    items = [Item((one,), {}) for one in flipped(made.ciphertext, (0, 7))]
    secrets = [
        done.result.shared_secret.reveal()
        for _, done in each(shop, operations.decapsulate, key, items)
    ]
    assert right not in secrets
    assert len(set(secrets)) == len(secrets)
    wrong = [one for one in cut_and_grown(made.ciphertext) if len(one) != len(made.ciphertext)]
    for item, done in each(shop, operations.decapsulate, key, [Item((w,), {}) for w in wrong]):
        assert type(done.error) is CannotDecrypt, (len(item.args[0]), done)
    again = operations.decapsulate(shop.caller, str(key.id), made.ciphertext)
    assert again.shared_secret.reveal() == right
