"""Documents that a registry may answer with, right and wrong, for tests by hypothesis."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from shelf import CONFIG, Shelf, name_of

from bkrules.images import documents, layout

_NAMES = [
    *("schemaVersion", "mediaType", "manifests", "config", "layers", "blobs", "subject", "fsLayers", "annotations"),
    *("digest", "size", "data", "urls", "platform", "os", "architecture", "variant", "rootfs", "diff_ids", "history"),
    *("Config", "Layers", "RepoTags", "Digest", "LAYERS"),
]
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            *(
                *documents.INDEXES,
                *documents.MANIFESTS,
                *documents.ARTIFACTS,
                layout.LAYER,
                layout.CONFIG,
                "x/y",
                "e30=",
            ),
            *(name_of(b"x"), name_of(CONFIG), "sha256:../../x", f"sha512:{'0' * 128}", "latest", "linux", "amd64"),
        ]
    ),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)


@st.composite
def any_documents(draw: st.DrawFn) -> bytes:
    """Documents of any kind: right ones of which something is changed, any JSON, cut or changed bytes, any bytes."""
    shelf = Shelf()
    image = shelf.image(b"x", b"y")
    base = draw(
        st.sampled_from(
            [
                image,
                shelf.index(shelf.put(image)),
                {"mediaType": documents.ARTIFACTS[0], "blobs": [shelf.blob_of(b"x")]},
            ]
        )
    )
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return json.dumps(draw(_VALUES)).encode()
    document = json.loads(json.dumps(base))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, document)
    data = json.dumps(document).encode()
    if kind == 3 and data:
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
    return data


def _change(draw: st.DrawFn, document: Any) -> None:
    """Change one thing, anywhere in a document."""
    while True:
        keys = list(document) if isinstance(document, dict) else range(len(document))
        if not keys or draw(st.booleans()):
            break
        inner = document[draw(st.sampled_from(list(keys)))]
        if not isinstance(inner, dict | list):
            break
        document = inner
    if isinstance(document, dict):
        document[draw(st.sampled_from(_NAMES))] = draw(_VALUES)
    else:
        document.append(draw(_VALUES))
