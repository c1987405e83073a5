"""Readers of box annotations: COCO JSON, Pascal VOC XML and CSV, one Record a box."""

from __future__ import annotations

import csv
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import InputError

BOX = ("x", "y", "width", "height")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Record(NamedTuple):
    """What one entry of the annotations says; values unchecked."""

    entry: str  # file and place, for errors
    name: str  # file name of the frame
    size: tuple[Any, Any]  # of the frame, (H, W); None or empty where not given
    box: tuple | None  # (x, y, width, height); None opens a frame, which may stay without


def to_number(entry: str, value) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < 1e9:
        raise InputError(f"{entry}: expected a number, got {value!r}")
    return number


def read_coco(path: Path) -> Iterator[Record]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    images = {}
    for entry, image in _entries(path, document, "images"):
        _expect(entry, image, "id", int | str)
        name = _expect(entry, image, "file_name", str)
        if image["id"] in images:
            first = images[image["id"]].name
            raise InputError(f"{entry}: {name!r} has the id {image['id']!r}, as {first!r} has")
        size = image.get("height"), image.get("width")
        images[image["id"]] = Record(entry, name, size, None)
        yield images[image["id"]]
    for entry, annotation in _entries(path, document, "annotations"):
        number, box = _expect(entry, annotation, "image_id", int | str), annotation.get("bbox")
        if number not in images:
            raise InputError(f"{entry}: there is no image with the id {number!r}")
        if not isinstance(box, list) or len(box) != 4:
            raise InputError(f"{entry}: bbox: expected [x, y, width, height], got {box!r}")
        yield images[number]._replace(entry=entry, box=tuple(box))


def _entries(path: Path, document, name: str) -> Iterator[tuple[str, dict]]:
    """The entries of a list in a JSON document, each with its place."""
    if not isinstance(document, dict) or not isinstance(document.get(name), list):
        raise InputError(f"{path}: not COCO: it has no list {name!r}")
    for index, item in enumerate(document[name]):
        if not isinstance(item, dict):
            raise InputError(f"{path}: {name}[{index}]: expected fields, got {item!r}")
        yield f"{path}: {name}[{index}]", item


def _expect(entry: str, item: dict, key: str, kind):
    if not isinstance(item.get(key), kind):
        raise InputError(f"{entry}: {key}: missing or of a wrong kind ({item.get(key)!r})")
    return item[key]


def read_voc(source: Path) -> Iterator[Record]:
    paths = sorted(source.rglob("*.xml")) if source.is_dir() else [source]
    if not paths:
        raise InputError(f"{source}: holds no .xml files")
    for path in paths:
        root = _parse_xml(path)
        name = root.findtext("filename") or path.stem
        if not re.search(r"[/\\]", name):
            below = path.relative_to(source).parent.as_posix() if source.is_dir() else "."
            name = f"{below if below != '.' else root.findtext('folder') or '.'}/{name}"
        size = root.findtext("size/height"), root.findtext("size/width")
        yield Record(str(path), name, size, None)
        for index, item in enumerate(root.iterfind("object"), start=1):
            entry = f"{path}: object {index}"
            texts = [(corner, item.findtext(f"bndbox/{corner}")) for corner in CORNERS]
            x, y, right, bottom = (to_number(f"{entry}: {corner}", t) for corner, t in texts)
            # Pixels from 1, corners included: xmin 1, xmax W is the whole width (VOC2007 devkit).
            yield Record(entry, name, size, (x - 1, y - 1, right - x + 1, bottom - y + 1))


def _parse_xml(path: Path) -> ElementTree.Element:
    content = path.read_bytes()
    if b"<!DOCTYPE" in content.replace(b"\0", b""):  # UTF-16 has zeros between the letters
        raise InputError(f"{path}: declares a document type; remove it (its entities may explode)")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as XML ({error})") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: not Pascal VOC: the root is <{root.tag}>, not <annotation>")
    return root


def read_csv(path: Path) -> Iterator[Record]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        try:
            for column in ("frame", *BOX):
                if column not in (reader.fieldnames or ()):
                    raise InputError(f"{path}: the header has no column {column!r}")
            for row in reader:
                sequence, name = row.get("sequence"), row["frame"] or ""
                entry = f"{path}: line {reader.line_num}"
                if None in row or None in row.values():  # more cells than the header, or fewer
                    cells = f"{len(reader.fieldnames)} cells, as in the header"
                    raise InputError(f"{entry}: expected {cells} (empty ones: no targets)")
                if "sequence" in row:
                    if not (sequence and name) or re.search(r"[/\\]", sequence + name):
                        raise InputError(f"{entry}: sequence and frame must be plain names")
                    name = f"{sequence}/{name}"
                box = tuple(row[column] for column in BOX)
                size = row.get("frame_height"), row.get("frame_width")
                yield Record(entry, name, size, box if any(box) else None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as CSV ({error})") from None


def choose_reader(source: Path):
    """The reader for SRC, by its suffix; InputError if there is none."""
    readers = {".json": read_coco, ".xml": read_voc, ".csv": read_csv}
    if source.is_dir():
        return read_voc
    if not source.is_file():
        raise InputError(f"{source}: no such file or folder")
    if source.suffix.lower() not in readers:
        raise InputError(f"{source}: expected {', '.join(readers)} or a folder of .xml files")
    return readers[source.suffix.lower()]
