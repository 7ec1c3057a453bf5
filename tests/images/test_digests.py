from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import rounds

from bkrules.images.digests import ImageDigest

HEX = "0123456789abcdef" * 4


def test_a_digest_is_a_text_with_its_parts() -> None:
    digest = ImageDigest(f"sha256:{HEX}")
    assert (digest, digest.hash, digest.path) == (f"sha256:{HEX}", HEX, f"sha256/{HEX}")
    assert ImageDigest.of_hash(HEX) == digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no digest"),
        (HEX, "is no digest"),
        ("latest", "is no digest"),
        ("sha256:../../../etc/passwd", "is no digest"),
        (f"sha256:{HEX}/../x", "is no digest"),
        (f" sha256:{HEX}", "is no digest"),
        (f"sha256:{HEX}\n", "is no digest"),
        (f"sha256:{HEX}\0", "is no digest"),
        (f"../sha256:{HEX}", "is no digest"),
        (f"SHA256:{HEX}", "is no digest"),
        (f"sha256:{HEX.upper()}", "64 lower-case"),
        (f"sha256:{HEX[:-1]}", "64 lower-case"),
        (f"sha256:{HEX}0", "64 lower-case"),
        ("sha256:\u0660" + HEX[1:], "is no digest"),
        (f"sha512:{HEX}{HEX}", "a digest of sha512, and bk knows sha256 alone"),
        (f"md5:{HEX[:32]}", "a digest of md5"),
        ("x" * 5000, r"xxx\.\.\.' is no digest"),
    ],
)
def test_other_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ImageDigest(text)


@settings(max_examples=rounds(300))
@given(st.text(max_size=90) | st.from_regex(r"sha256:[0-9a-f./\\%\x00]{60,70}", fullmatch=True))
def test_what_is_a_digest_is_one_name_of_a_file(text: str) -> None:
    try:
        digest = ImageDigest(text)
    except ValueError:
        return
    assert len(digest.hash) == 64
    assert set(digest.hash) <= set("0123456789abcdef")
