"""Random draws by key: fixed for good, in range, even, and independent of each other."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from manifests.seeds import digest, integer, uniform


def test_digest_is_sha256_of_length_prefixed_parts():
    # Oracle: hashlib on the bytes written out by hand; datasets in the world depend on this value.
    assert digest("ab", 7) == hashlib.sha256(b"2:ab1:7").digest()
    assert digest("é") == hashlib.sha256(b"2:\xc3\xa9").digest()


def test_draws_have_values_that_never_change():
    # Oracle: the digest above, its first bytes by hand.
    first = hashlib.sha256(b"1:a1:0").digest()
    assert integer("a", 0) == int.from_bytes(first[:4], "big") // 2
    assert uniform(0.0, 1.0, "a", 0) == (int.from_bytes(first[:8], "big") >> 11) / 2**53


@pytest.mark.parametrize(("one", "other"), [(("ab", "c"), ("a", "bc")), (("a",), ("a", "")), ((1, 23), (12, 3))])
def test_keys_that_read_alike_when_joined_differ(one, other):
    # Oracle: the definition of independence.
    assert digest(*one) != digest(*other)


def test_draws_are_even_and_within_their_range():
    # Oracle: the range; mean and extremes of a uniform distribution, 5 standard errors wide.
    values = np.array([uniform(-11.25, 11.25, "offset", i) for i in range(4000)])
    assert values.min() >= -11.25
    assert values.max() < 11.25
    assert abs(values.mean()) < 5 * 22.5 / np.sqrt(12 * 4000)
    assert values.min() < -11.2
    assert values.max() > 11.2
    assert uniform(3.0, 3.0, "x") == 3.0
    numbers = np.array([integer("seed", i) for i in range(4000)])
    assert numbers.min() >= 0
    assert numbers.max() < 2**31
    assert abs(numbers.mean() / 2**31 - 0.5) < 5 / np.sqrt(12 * 4000)
    assert len(set(numbers.tolist())) > 3990


def test_draws_of_neighbouring_keys_are_uncorrelated():
    # Oracle: correlation of independent draws, 5 standard errors.
    draws = np.array([[uniform(0, 1, i, name) for name in ("azimuth", "elevation")] for i in range(3000)])
    assert abs(np.corrcoef(draws.T)[0, 1]) < 5 / np.sqrt(3000)
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 5 / np.sqrt(3000)
