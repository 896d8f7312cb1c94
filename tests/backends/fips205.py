"""SLH-DSA with SHA-2, written from FIPS 205 for these tests: it signs without randomness.

The library that the product uses signs hedged only, and published vectors give a signature's hash,
since the signature itself has up to 49,856 bytes. So this makes the signature of a vector, whose
hash is compared with the published one, and the product verifies it. Slow and not constant-time.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property

WOTS_HASH, WOTS_PK, TREE, FORS_TREE, FORS_ROOTS, WOTS_PRF, FORS_PRF = range(7)


@dataclass(frozen=True)
class Parameters:
    """Table 2 of FIPS 205: n, h, d, h', a, k, m; lg w is 4 in all of them."""

    n: int
    h: int
    d: int
    height: int
    a: int
    k: int
    m: int

    @property
    def chains(self) -> int:
        return 2 * self.n + 3


SETS = {
    "128S": Parameters(16, 63, 7, 9, 12, 14, 30),
    "128F": Parameters(16, 66, 22, 3, 6, 33, 34),
    "192S": Parameters(24, 63, 7, 9, 14, 17, 39),
    "192F": Parameters(24, 66, 22, 3, 8, 33, 42),
    "256S": Parameters(32, 64, 8, 8, 14, 22, 47),
    "256F": Parameters(32, 68, 17, 4, 9, 35, 49),
}


def _address(layer: int, tree: int, kind: int, *words: int) -> bytes:
    """ADRSc (11.2): a byte of layer, 8 of tree, one of type, three words."""
    packed = bytes([layer]) + tree.to_bytes(8, "big") + bytes([kind])
    return packed + b"".join(word.to_bytes(4, "big") for word in words)


@dataclass
class Signer:
    """A private key: SK.seed, SK.prf, PK.seed, PK.root."""

    parameters: Parameters
    secret: bytes
    prf: bytes
    seed: bytes
    root: bytes

    @classmethod
    def of(cls, name: str, raw: bytes) -> Signer:
        n = SETS[name].n
        return cls(SETS[name], *(raw[start : start + n] for start in range(0, 4 * n, n)))

    # --- 11.2: the functions with SHA-2; the larger sets take SHA-512 for what is more than a block

    @cached_property
    def _small(self) -> hashlib._Hash:
        return hashlib.sha256(self.seed + bytes(64 - self.parameters.n))

    @cached_property
    def _large(self) -> hashlib._Hash:
        if self.parameters.n == 16:
            return self._small
        return hashlib.sha512(self.seed + bytes(128 - self.parameters.n))

    def _f(self, address: bytes, text: bytes) -> bytes:
        state = self._small.copy()
        state.update(address + text)
        return state.digest()[: self.parameters.n]

    def _t(self, address: bytes, text: bytes) -> bytes:
        state = self._large.copy()
        state.update(address + text)
        return state.digest()[: self.parameters.n]

    def _digest(self, randomizer: bytes, message: bytes) -> bytes:
        name = "sha256" if self.parameters.n == 16 else "sha512"
        inner = hashlib.new(name, randomizer + self.seed + self.root + message).digest()
        out, counter = b"", 0
        while len(out) < self.parameters.m:
            block = randomizer + self.seed + inner + counter.to_bytes(4, "big")
            out += hashlib.new(name, block).digest()
            counter += 1
        return out[: self.parameters.m]

    # --- 5: WOTS+

    def _chain(self, place: tuple[int, int, int], chain: int, start: int, end: int) -> bytes:
        layer, tree, pair = place
        value = self._f(_address(layer, tree, WOTS_PRF, pair, chain, 0), self.secret)
        head = _address(layer, tree, WOTS_HASH, pair, chain)
        for step in range(end):
            value = self._f(head + step.to_bytes(4, "big"), value)
        return value

    def _leaf(self, layer: int, tree: int, pair: int) -> bytes:
        ends = (
            self._chain((layer, tree, pair), chain, 0, 15)
            for chain in range(self.parameters.chains)
        )
        return self._t(_address(layer, tree, WOTS_PK, pair, 0, 0), b"".join(ends))

    def _one_time(self, message: bytes, layer: int, tree: int, pair: int) -> bytes:
        digits = [digit for byte in message for digit in (byte >> 4, byte & 15)]
        check = sum(15 - digit for digit in digits) << 4
        digits += [check >> 12, (check >> 8) & 15, (check >> 4) & 15]
        return b"".join(
            self._chain((layer, tree, pair), chain, 0, digit) for chain, digit in enumerate(digits)
        )

    # --- 6 and 7: trees

    def _path(
        self, leaves: list[bytes], index: int, layer: int, tree: int, kind: tuple[int, int, int]
    ) -> tuple[bytes, bytes]:
        """Return a leaf's authentication path and the root; `kind`: type, first word, offset."""
        label, word, offset = kind
        path, level = b"", 0
        while len(leaves) > 1:
            path += leaves[index ^ 1]
            level, index, offset = level + 1, index >> 1, offset >> 1
            leaves = [
                self._t(
                    _address(layer, tree, label, word, level, offset + place // 2),
                    leaves[place] + leaves[place + 1],
                )
                for place in range(0, len(leaves), 2)
            ]
        return path, leaves[0]

    def _subtree(self, layer: int, tree: int, index: int) -> tuple[bytes, bytes]:
        leaves = [self._leaf(layer, tree, pair) for pair in range(1 << self.parameters.height)]
        return self._path(leaves, index, layer, tree, (TREE, 0, 0))

    def computed_root(self) -> bytes:
        """Return what PK.root has to be (algorithm 18)."""
        return self._subtree(self.parameters.d - 1, 0, 0)[1]

    # --- 8: FORS

    def _few_times(self, digest: bytes, tree: int, pair: int) -> tuple[bytes, bytes]:
        a, k = self.parameters.a, self.parameters.k
        bits = int.from_bytes(digest, "big") >> (len(digest) * 8 - a * k)
        signature, roots = b"", b""
        for number in range(k):
            index = (bits >> (a * (k - 1 - number))) & ((1 << a) - 1)
            first = number << a
            secrets = [
                self._f(_address(0, tree, FORS_PRF, pair, 0, first + leaf), self.secret)
                for leaf in range(1 << a)
            ]
            leaves = [
                self._f(_address(0, tree, FORS_TREE, pair, 0, first + leaf), secret)
                for leaf, secret in enumerate(secrets)
            ]
            path, root = self._path(leaves, index, 0, tree, (FORS_TREE, pair, first))
            signature, roots = signature + secrets[index] + path, roots + root
        return signature, self._t(_address(0, tree, FORS_ROOTS, pair, 0, 0), roots)

    # --- 9 and 10

    def sign_internal(self, message: bytes) -> bytes:
        """Algorithm 19, with PK.seed in place of randomness."""
        name = "sha256" if self.parameters.n == 16 else "sha512"
        randomizer = hmac.digest(self.prf, self.seed + message, name)[: self.parameters.n]
        digest = self._digest(randomizer, message)
        tree_bits = self.parameters.h - self.parameters.height
        cut = (self.parameters.a * self.parameters.k + 7) // 8
        end = cut + (tree_bits + 7) // 8
        tree = int.from_bytes(digest[cut:end], "big") % (1 << tree_bits)
        rest = digest[end : end + (self.parameters.height + 7) // 8]
        leaf = int.from_bytes(rest, "big") % (1 << self.parameters.height)
        few, value = self._few_times(digest[:cut], tree, leaf)
        signature = randomizer + few
        for layer in range(self.parameters.d):
            path, root = self._subtree(layer, tree, leaf)
            signature += self._one_time(value, layer, tree, leaf) + path
            value, leaf = root, tree % (1 << self.parameters.height)
            tree >>= self.parameters.height
        assert value == self.root
        return signature

    def sign(self, message: bytes) -> bytes:
        """Algorithm 22 with an empty context: the pure form."""
        return self.sign_internal(b"\x00\x00" + message)
