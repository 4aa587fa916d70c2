"""Images become the tree that a container would see."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfs_gw.ingest.errors import BadImage, IngestError
from cvmfs_gw.ingest.image import ImageSource
from tests.ingest.support import Seen, tree_of
from tests.ingest.test_archive import COMPRESSIONS, REGULAR, Dribble, member, packed

Members = list[tuple[tarfile.TarInfo, bytes]]
Compress = Callable[[bytes], bytes]
LAYER_COMPRESSIONS: Final[dict[str, Compress]] = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def files(contents: dict[str, bytes]) -> bytes:
    """An archive of plain files."""
    return packed([(member(name), content) for name, content in contents.items()])


def descriptor(data: bytes, **more: object) -> dict[str, object]:
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest(data),
        "size": len(data),
        **more,
    }


def blobs_of(layers: list[bytes], compress: Compress = bytes) -> tuple[dict[str, bytes], bytes]:
    """The blobs of an image by path, and its manifest."""
    stored = [compress(layer) for layer in layers]
    configuration = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}).encode()
    manifest = json.dumps(
        {"schemaVersion": 2, "config": descriptor(configuration), "layers": [descriptor(one) for one in stored]}
    ).encode()
    return {"blobs/sha256/" + digest(one)[7:]: one for one in (*stored, configuration, manifest)}, manifest


def oci(layers: list[bytes], compress: Compress = bytes) -> bytes:
    blobs, manifest = blobs_of(layers, compress)
    return files({**blobs, "index.json": json.dumps({"manifests": [descriptor(manifest)]}).encode()})


def saved(layers: list[bytes], tags: tuple[str, ...] = ("a:1",)) -> bytes:
    """As ``docker save`` wrote them before it wrote OCI's layout, too: what one needs first comes last."""
    configuration = json.dumps({"rootfs": {"diff_ids": [digest(layer) for layer in layers]}}).encode()
    name = digest(configuration)[7:] + ".json"
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": name, "RepoTags": [tag], "Layers": names} for tag in tags]
    return files(
        {**dict(zip(names, layers, strict=True)), name: configuration, "manifest.json": json.dumps(manifest).encode()}
    )


def see(data: bytes, **options: str | None) -> dict[str, Seen | None]:
    return tree_of(ImageSource(io.BytesIO(data), **options))  # type: ignore[arg-type]


BASE: Final[Members] = [
    (member("etc", tarfile.DIRTYPE, mode=0o755), b""),
    (member("etc/passwd"), b"root"),
    (member("etc/group"), b"wheel"),
    (member("usr/lib/x"), b"library"),
    (member("lib", tarfile.SYMTYPE, linkname="usr/lib"), b""),
    (member("opt/a/b"), b"deep"),
    (member("opt/c"), b"c"),
    (member("twin", tarfile.LNKTYPE, linkname="opt/c"), b""),
]
CHANGE: Final[Members] = [
    (member("etc/passwd"), b"changed"),
    (member("etc/.wh.group"), b""),
    (member("opt/new"), b"survives its own opaque mark"),
    (member("opt/.wh..wh..opq"), b""),
    (member("lib/y"), b"through a link of the lower layer"),
    (member("usr/z", tarfile.LNKTYPE, linkname="lib/x"), b""),
]


def expected() -> dict[str, Seen | None]:
    return {
        "": None,
        "/etc": Seen(stat.S_IFDIR | 0o755),
        "/etc/passwd": Seen(REGULAR, content=b"changed"),
        "/usr": None,
        "/usr/lib": None,
        "/usr/lib/x": Seen(REGULAR, content=b"library"),
        "/usr/lib/y": Seen(REGULAR, content=b"through a link of the lower layer"),
        "/usr/z": Seen(REGULAR, content=b"library"),
        "/lib": Seen(stat.S_IFLNK | 0o777, content="usr/lib"),
        "/opt": None,
        "/opt/new": Seen(REGULAR, content=b"survives its own opaque mark"),
        "/twin": Seen(REGULAR, content=b"c"),
    }


@pytest.mark.parametrize("name", LAYER_COMPRESSIONS)
def test_oci(name: str) -> None:
    assert see(oci([packed(BASE), packed(CHANGE)], LAYER_COMPRESSIONS[name])) == expected()


def test_docker_save() -> None:
    assert see(saved([packed(BASE), packed(CHANGE)])) == expected()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compressed_image_from_a_pipe(name: str) -> None:
    data = COMPRESSIONS[name](oci([packed(BASE), packed(CHANGE)]))
    assert tree_of(ImageSource(Dribble(data, 5000))) == expected()


def unpacked(data: bytes, folder: Path) -> str:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")
    return str(folder)


@pytest.mark.parametrize("name", LAYER_COMPRESSIONS)
def test_layout_in_a_folder(name: str, tmp_path: Path) -> None:
    data = oci([packed(BASE), packed(CHANGE)], LAYER_COMPRESSIONS[name])
    assert tree_of(ImageSource(unpacked(data, tmp_path / "image"))) == expected()


def test_docker_save_in_a_folder(tmp_path: Path) -> None:
    folder = unpacked(saved([packed(BASE), packed(CHANGE)]), tmp_path / "image")
    # as it has layers that were saved before
    Path(folder, "old").symlink_to("1/layer.tar")
    Path(folder, "manifest.json").write_text(Path(folder, "manifest.json").read_text().replace("1/layer.tar", "old"))
    assert tree_of(ImageSource(folder)) == expected()


def test_a_folder_is_not_left(tmp_path: Path) -> None:
    folder = unpacked(oci([packed(BASE)]), tmp_path / "image")
    [layer] = [path for path in Path(folder, "blobs/sha256").iterdir() if path.read_bytes() == packed(BASE)]
    shutil.move(layer, tmp_path / "layer")
    with pytest.raises(BadImage, match="is not in the folder"):
        tree_of(ImageSource(folder))
    os.mkfifo(layer)
    with pytest.raises(BadImage, match="is not in the folder"):
        tree_of(ImageSource(folder))
    layer.unlink()
    layer.symlink_to(tmp_path / "layer")
    with pytest.raises(BadImage, match="leads out"):
        tree_of(ImageSource(folder))


def test_layers_without_an_end() -> None:
    """Some builders leave it out; the digest vouches for them."""
    assert see(oci([packed(BASE, end=False), packed(CHANGE, end=False)])) == expected()


def test_hidden_contents_are_not_stored() -> None:
    layers = [packed([(member("f"), b"hidden")]), packed([(member("f"), b"seen")])]
    [source] = [ImageSource(io.BytesIO(oci(layers)))]
    contents = [getattr(item, "content", None) for item in source.items()]
    assert contents == [b"seen"]


@pytest.mark.parametrize(
    ("lower", "upper", "seen"),
    [
        ([("d/f", b"x")], [("d", b"now a file")], {"/d": b"now a file"}),
        ([("d", b"a file")], [("d/", None), ("d/f", b"x")], {"/d/f": b"x"}),
        ([("f", b"x")], [(".wh.f", b""), ("f", b"again")], {"/f": b"again"}),
        ([("f", b"x")], [("f", b"again"), (".wh.f", b"")], {"/f": b"again"}),
        ([("f", b"x")], [(".wh..wh..opq", b"")], {}),
        ([("d/f", b"x")], [(".wh.d", b"")], {}),
        ([], [(".wh.never", b""), ("no/.wh.such", b"")], {}),
    ],
)
def test_layer_over_layer(
    lower: list[tuple[str, bytes]], upper: list[tuple[str, bytes | None]], seen: dict[str, bytes]
) -> None:
    def layer(what: list[tuple[str, bytes]] | list[tuple[str, bytes | None]]) -> bytes:
        return packed(
            [
                (member(name, tarfile.REGTYPE if data is not None else tarfile.DIRTYPE), data or b"")
                for name, data in what
            ]
        )

    found = see(oci([layer(lower), layer(upper)]))
    assert {path: one.content for path, one in found.items() if one and stat.S_ISREG(one.mode)} == seen


def test_links_lead_nowhere_but_into_the_image() -> None:
    lower = packed(
        [
            (member("up", tarfile.SYMTYPE, linkname="../../../etc"), b""),
            (member("abs", tarfile.SYMTYPE, linkname="/etc/./x"), b""),
        ]
    )
    upper = packed([(member("up/one"), b"1"), (member("abs/two"), b"2")])
    found = see(oci([lower, upper]))
    assert {path for path, one in found.items() if one and stat.S_ISREG(one.mode)} == {"/etc/one", "/etc/x/two"}


HOSTILE: Final[dict[str, Members]] = {
    "loop": [(member("l", tarfile.SYMTYPE, linkname="l"), b""), (member("l/x"), b"")],
    "into a file": [(member("f"), b""), (member("f/x"), b"")],
    "climbs": [(member("../x"), b"")],
    "link to nothing": [(member("l", tarfile.LNKTYPE, linkname="x"), b"")],
    "link to a directory": [(member("d", tarfile.DIRTYPE), b""), (member("l", tarfile.LNKTYPE, linkname="d"), b"")],
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_layers(case: str) -> None:
    with pytest.raises(BadImage):
        see(oci([packed(HOSTILE[case])]))


def test_several_platforms() -> None:
    parts = [blobs_of([packed([(member(name), b"")])]) for name in ("amd64", "arm64")]
    platforms = [{"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"}]
    manifests = [descriptor(part[1], platform=platform) for part, platform in zip(parts, platforms, strict=True)]
    manifests.append(descriptor(b"attestation", platform={"os": "unknown", "architecture": "unknown"}))
    inner = json.dumps({"manifests": manifests}).encode()
    outer = json.dumps({"manifests": [descriptor(inner)]}).encode()
    data = files({**parts[0][0], **parts[1][0], "blobs/sha256/" + digest(inner)[7:]: inner, "index.json": outer})
    assert set(see(data, platform="linux/amd64")) == {"", "/amd64"}
    assert set(see(data, platform="linux/arm64")) == {"", "/arm64"}
    for options in ({}, {"platform": "windows/amd64"}):
        with pytest.raises(BadImage, match=r"to choose from: linux/amd64, linux/arm64/v8$"):
            see(data, **options)


def test_several_images() -> None:
    data = saved([packed(BASE)], ("a:1", "b:1"))
    assert see(data, tag="b:1")
    for options in ({}, {"tag": "c:1"}):
        with pytest.raises(BadImage, match=r"to choose from: a:1, b:1$"):
            see(data, **options)


def test_tags_in_an_index() -> None:
    parts = {name: blobs_of([packed([(member(name), b"")])]) for name in ("one", "two")}
    manifests = [
        descriptor(
            manifest,
            annotations={
                "org.opencontainers.image.ref.name": name,
                "io.containerd.image.name": f"docker.io/library/app:{name}",
            },
        )
        for name, (_, manifest) in parts.items()
    ]
    manifests.append(descriptor(b"a signature", artifactType="application/vnd.example.signature"))
    manifests.append({**descriptor(b"a chart"), "mediaType": "application/vnd.example.chart"})
    index = {"index.json": json.dumps({"manifests": manifests}).encode()}
    data = files(parts["one"][0] | parts["two"][0] | index)
    for tag in ("two", "app:two", "docker.io/library/app:two"):
        assert set(see(data, tag=tag)) == {"", "/two"}
    with pytest.raises(BadImage, match=r"2 images to choose from: \S+/app:one, \S+/app:two$"):
        see(data)


def _broken() -> dict[str, bytes]:
    layers = [packed(BASE)]
    blobs, manifest = blobs_of(layers, gzip.compress)
    index = {"index.json": json.dumps({"manifests": [descriptor(manifest)]}).encode()}
    layer, configuration, last = list(blobs)
    other = json.dumps({"config": descriptor(blobs[configuration]), "layers": []}).encode()
    nothing = {"blobs/sha256/" + digest(other)[7:]: other}
    return {
        "nothing": b"",
        "no archive": b"x" * 5000,
        "an archive of something else": packed(BASE),
        "cut off": files(blobs | index)[:-3000],
        "no index": files(blobs),
        "index of nothing": files({"index.json": b"{}"}),
        "index of text": files({"index.json": b"no JSON"}),
        "index of another kind": files({"index.json": b'{"manifests": 7}'}),
        "layer missing": files({path: data for path, data in (blobs | index).items() if path != layer}),
        "configuration missing": files({path: data for path, data in (blobs | index).items() if path != configuration}),
        "layer of other bytes": files(blobs | index | {layer: gzip.compress(packed(CHANGE))}),
        "layer of the same content": files(blobs | index | {layer: gzip.compress(layers[0], 1)}),
        "manifest of other bytes": files(blobs | index | {last: blobs[last] + b" "}),
        "fewer layers": files(
            blobs | nothing | {"index.json": json.dumps({"manifests": [descriptor(other)]}).encode()}
        ),
        "digest of an unknown kind": files({"index.json": b'{"manifests": [{"digest": "md5:1"}]}'}),
        "digest that climbs": files({"index.json": b'{"manifests": [{"digest": "../../etc:passwd"}]}'}),
    }


@pytest.mark.parametrize("case", _broken())
def test_broken_images(case: str) -> None:
    with pytest.raises(IngestError):
        see(_broken()[case])


def test_nothing_is_given_before_the_digests_are_verified() -> None:
    data = _broken()["layer of the same content"]
    given: list[object] = []
    with pytest.raises(BadImage, match="does not have its digest"):
        given.extend(ImageSource(io.BytesIO(data)).items())
    assert given == []


NAMES = st.sampled_from(["a", "b", "a/c", "a/d", "b/c"])


@given(
    st.lists(
        st.dictionaries(NAMES, st.sampled_from([b"1", b"2", None, "gone", "opaque"]), max_size=5),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_layers(layers: list[dict[str, bytes | str | None]]) -> None:
    """Against a dictionary: whiteouts first, then the rest, layer by layer. None is a directory.

    A directory that no layer says anything of is there for what is in it.
    """
    model: dict[str, bytes | None] = {}
    given: set[str] = set()

    def remove(path: str, *, itself: bool) -> None:
        for other in [other for other in model if other.startswith(path + "/") or (itself and other == path)]:
            del model[other]
            given.discard(other)

    packed_layers = []
    wrong = False
    for layer in layers:
        out: Members = []
        for path, what in layer.items():
            parent, _, name = path.rpartition("/")
            if what == "gone":
                out.append((member(f"{parent}/.wh.{name}"), b""))
                remove(path, itself=True)
            elif what == "opaque":
                out.append((member(f"{path}/.wh..wh..opq"), b""))
                remove(path, itself=False)
        for path, what in layer.items():
            if isinstance(what, str):
                continue
            out.append((member(path, tarfile.DIRTYPE if what is None else tarfile.REGTYPE), what or b""))
            parent = path.rpartition("/")[0]
            wrong |= bool(parent) and model.get(parent) is not None
            if parent:
                model.setdefault(parent, None)
            if what is not None or model.get(path) is not None:
                remove(path, itself=True)
            model[path] = what
            given.add(path)
        packed_layers.append(packed(out))
    source = ImageSource(io.BytesIO(oci(packed_layers)))
    if wrong:
        with pytest.raises(BadImage):
            tree_of(source)
        return
    found = {path[1:]: seen.content if seen else None for path, seen in tree_of(source).items() if path}
    assert found == {
        path: what
        for path, what in model.items()
        if path in given or any(other.startswith(path + "/") for other in model)
    }
