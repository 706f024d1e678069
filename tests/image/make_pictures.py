#!/usr/bin/env python3
"""Writes tests/image/pictures (files of every kind that is read) and tests/image/case (what they read as).

    python3 tests/image/make_pictures.py        (pillow 13.0.0, numpy, safetensors)

The right pixels of every file here and of tests/reports/01-exif and 02-picture-kinds are those of diffusers' load_image, whose two lines
are repeated in load_image below. case/io.safetensors has them as U8 [height, width, 3] under the file's path from tests/.
"""
import glob
import io
import json
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin
from safetensors.numpy import save_file

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(TESTS, "image", "pictures")


def load_image(path):
    with open(path, "rb") as f:  # by its name, Pillow 13.0.0 forgets to turn some TIFF files
        image = Image.open(io.BytesIO(f.read()))
    image = ImageOps.exif_transpose(image)
    return np.asarray(image.convert("RGB"))


def draw(seed, height=12, width=17, channels=3):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(rng.uniform(0.1, 0.6) * x + rng.uniform(0.1, 0.6) * y + rng.uniform(0, 6)) for _ in range(channels)]
    return np.uint8(np.clip(np.stack(waves, -1) + rng.normal(0, 9, (height, width, channels)), 0, 255))


def put(name, data):
    with open(os.path.join(FOLDER, name), "wb") as f:
        f.write(data)


def exif(orientation, order="<", count=1):
    entry = struct.pack(order + "HHIHH", 0x0112, 3, count, orientation, 0)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels, bits, kind, extra=b""):
    """A PNG file of numpy pixels [height, width, channels] whose samples have so many bits (8 or 16)."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def xmp(orientation):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'


def write_png():
    rgb, rgba = Image.fromarray(draw(1)), Image.fromarray(draw(2, channels=4))
    wide = draw(3, channels=4).astype(np.uint16) * 257 + 77
    put("rgb16.png", png(wide[..., :3], 16, 2))
    put("rgba16.png", png(wide, 16, 6))
    put("grey16.png", png(draw(4, channels=1).astype(np.uint16) * 4, 16, 0))
    put("grey-alpha16.png", png(wide[..., :2], 16, 4))
    put("grey-transparent.png", png(draw(5, channels=1) & 0xF0, 8, 0, chunk(b"tRNS", b"\0\x80")))
    rgb.convert("L").save(f"{FOLDER}/grey.png")
    rgba.convert("LA").save(f"{FOLDER}/grey-alpha.png")
    rgb.convert("1").save(f"{FOLDER}/bits-1.png")
    rgb.convert("L").quantize(4).save(f"{FOLDER}/bits-2.png", bits=2)
    rgb.quantize(16).save(f"{FOLDER}/palette-transparent.png", transparency=3)
    rgb.save(f"{FOLDER}/exif-little.png", exif=b"Exif\0\0" + exif(8))
    info = PngImagePlugin.PngInfo()
    text = (b"Exif\0\0" + exif(5, ">")).hex()
    info.add_text("Raw profile type exif", f"\nexif\n{len(text) // 2:8}\n" + "\n".join(text[i : i + 72] for i in range(0, len(text), 72)) + "\n", zip=True)
    rgb.save(f"{FOLDER}/exif-profile.png", pnginfo=info)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp(3))
    rgb.save(f"{FOLDER}/xmp.png", pnginfo=info)


def write_jpeg():
    rgb = Image.fromarray(draw(11))
    Image.fromarray(draw(12, channels=4), "CMYK").save(f"{FOLDER}/cmyk.jpg", quality=95)
    rgb.convert("L").save(f"{FOLDER}/grey.jpg")
    rgb.save(f"{FOLDER}/progressive.jpg", progressive=True)
    for orientation in range(0, 10):
        rgb.save(f"{FOLDER}/exif-{orientation}.jpg", exif=b"Exif\0\0" + exif(orientation))
    rgb.save(f"{FOLDER}/xmp.jpg", xmp=xmp(6).encode())
    rgb.save(f"{FOLDER}/xmp-10.jpg", xmp=xmp(10).encode())
    rgb.save(f"{FOLDER}/xmp-twice.jpg", xmp=xmp("right").encode() + xmp(8).encode())
    for orientation in (0, 1, 9):  # which are upright, whatever XMP says
        rgb.save(f"{FOLDER}/xmp-exif-{orientation}.jpg", exif=b"Exif\0\0" + exif(orientation), xmp=xmp(6).encode())
    rgb.save(f"{FOLDER}/exif-twice.jpg", exif=b"Exif\0\0" + exif(6, count=2))


def write_webp():
    rgb, rgba = Image.fromarray(draw(21)), Image.fromarray(draw(22, channels=4))
    rgba.save(f"{FOLDER}/lossless-alpha.webp", lossless=True, exact=True)
    rgba.save(f"{FOLDER}/lossy-alpha.webp")
    rgb.save(f"{FOLDER}/exif.webp", exif=b"Exif\0\0" + exif(7))
    rgb.save(f"{FOLDER}/animated.webp", save_all=True, append_images=[Image.fromarray(draw(23))], lossless=True)


def tiff(pixels, photometric, order="<", tile=None, planes=False, alpha=None):
    """A TIFF file of numpy pixels [height, width, channels] of 8 or 16 bits, in one strip or in tiles (rows, columns), pixel by pixel or plane by
    plane; alpha: what TIFF's ExtraSamples says of the last channel."""
    height, width, channels = pixels.shape
    bits = pixels.itemsize * 8
    rows, columns = tile or (height, width)
    parts = []
    for plane in np.split(pixels, channels, axis=2) if planes else [pixels]:
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                part = plane[y : y + rows, x : x + columns]
                part = np.pad(part, ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0)))
                parts.append(part.astype(f"{order}u{bits // 8}").tobytes())
    sizes = [len(part) for part in parts]
    entries = [(256, "I", [width]), (257, "I", [height]), (258, "H", [bits] * channels), (259, "H", [1]), (262, "H", [photometric]), (277, "H", [channels])]
    entries += [(322, "I", [columns]), (323, "I", [rows]), (324, "I", None), (325, "I", sizes)] if tile else [(273, "I", None), (278, "I", [rows]), (279, "I", sizes)]
    entries += [(284, "H", [2])] * planes + [(338, "H", [alpha])] * (alpha is not None)
    after = 8 + 2 + 12 * len(entries) + 4
    first = after + 8 * len(parts) + 2 * channels  # behind the longest values
    starts = [first + sum(sizes[:i]) for i in range(len(parts))]
    out, values = b"", b""
    for tag, kind, numbers in sorted(entries):
        numbers = starts if numbers is None else numbers
        data = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        out += struct.pack(order + "HHI", tag, 3 if kind == "H" else 4, len(numbers))
        out += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", after + len(values))
        values += data if len(data) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries)) + out + bytes(4) + values
    return head.ljust(first, b"\0") + b"".join(parts)


def write_tiff():
    rgb, rgba = Image.fromarray(draw(31)), Image.fromarray(draw(32, channels=4))
    rgb.save(f"{FOLDER}/lzw.tiff", compression="tiff_lzw")
    rgb.save(f"{FOLDER}/deflate.tiff", compression="tiff_deflate")
    rgb.save(f"{FOLDER}/orientation.tiff", tiffinfo={274: 6})
    rgb.convert("L").save(f"{FOLDER}/grey.tiff")
    rgba.convert("LA").save(f"{FOLDER}/grey-alpha.tiff")
    rgb.quantize(16).save(f"{FOLDER}/palette.tiff")
    rgb.convert("1").save(f"{FOLDER}/bits-1.tiff", compression="group4")
    rgba.save(f"{FOLDER}/rgba.tiff")
    Image.fromarray(draw(33, channels=4), "CMYK").save(f"{FOLDER}/cmyk.tiff")
    put("rgb16.tiff", tiff(draw(34).astype(np.uint16) * 257 + 99, 2))
    put("rgb16-big.tiff", tiff(draw(34).astype(np.uint16) * 257 + 99, 2, ">"))
    put("grey16.tiff", tiff(draw(35, channels=1).astype(np.uint16) * 4, 1))
    for order in "<>":
        put(f"tiles-rgb16-{ord(order)}.tiff", tiff(draw(36, 20, 21).astype(np.uint16) * 257 + 99, 2, order, (16, 16)))
    put("tiles-rgba.tiff", tiff(draw(37, 20, 21, 4), 2, tile=(16, 16), alpha=2))
    put("tiles-multiplied.tiff", tiff(draw(37, 20, 21, 4), 2, tile=(16, 32), alpha=1))
    put("tiles-grey-alpha.tiff", tiff(draw(38, 20, 21, 2), 1, tile=(32, 16), alpha=2))
    put("tiles-cmyk.tiff", tiff(draw(39, 20, 21, 4), 5, tile=(16, 16)))
    put("tiles-white.tiff", tiff(draw(40, 20, 21, 1), 0, tile=(16, 16)))
    put("planes-rgb.tiff", tiff(draw(36), 2, planes=True))
    put("planes-tiles-rgba.tiff", tiff(draw(37, 20, 21, 4), 2, tile=(16, 16), planes=True, alpha=2))
    put("planes-cmyk.tiff", tiff(draw(39, 20, 21, 4), 5, planes=True))
    lab = np.stack([draw(34, channels=1)[..., 0], (draw(35, channels=1)[..., 0] // 8).astype(int) - 16, (draw(36)[..., 0] // 8).astype(int) - 16], -1)
    put("lab.tiff", tiff(np.uint8(lab & 255), 8))


def write_gif():
    frames = [Image.fromarray(draw(41 + i)).quantize(32) for i in range(3)]
    frames[0].save(f"{FOLDER}/animated.gif", save_all=True, append_images=frames[1:])
    frames[0].save(f"{FOLDER}/transparent.gif", transparency=5)
    Image.fromarray(draw(44, 19, 23)).quantize(8).save(f"{FOLDER}/interlaced.gif", interlace=True)
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    small = struct.pack("<HHBBB", 4, 3, 0x81, 2, 0) + palette + b"," + struct.pack("<HHHHB", 1, 1, 2, 1, 0)
    put("part-of-canvas.gif", b"GIF89a" + small + b"\x02\x02\x8c\x53\0;")


def bmp(width, height, bits, compression, pixels, palette=b"", masks=b""):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, len(palette) // 4, 0)
    offset = 14 + len(header) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + masks + palette + pixels


def write_bmp():
    rgb = Image.fromarray(draw(51))
    for mode in ("1", "L", "P"):
        (rgb.quantize(64) if mode == "P" else rgb.convert(mode)).save(f"{FOLDER}/{mode}.bmp")
    Image.fromarray(draw(52, channels=4)).save(f"{FOLDER}/rgba.bmp")
    rng = np.random.default_rng(53)
    palette = rng.integers(0, 256, 16 * 4, dtype=np.uint8).tobytes()
    put("top-down.bmp", bmp(5, -3, 24, 0, rng.integers(0, 256, 48, dtype=np.uint8).tobytes()))
    put("bits-4.bmp", bmp(5, 3, 4, 0, rng.integers(0, 256, 12, dtype=np.uint8).tobytes(), palette))
    put("bits-15.bmp", bmp(5, 3, 16, 0, rng.integers(0, 256, 36, dtype=np.uint8).tobytes()))
    put("bits-16.bmp", bmp(5, 3, 16, 3, rng.integers(0, 256, 36, dtype=np.uint8).tobytes(), masks=struct.pack("<III", 0xF800, 0x7E0, 0x1F)))
    put("runs-8.bmp", bmp(6, 4, 8, 1, bytes([6, 1, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 1, 9, 0, 0, 2, 3, 0, 2, 1, 1, 3, 7, 0, 1]), palette))
    os2 = struct.pack("<IHHHH", 12, 5, 3, 1, 8) + b"".join(palette[i * 4 : i * 4 + 3] for i in range(16)) + bytes(240 * 3)
    put("os2.bmp", b"BM" + struct.pack("<IHHI", 14 + len(os2) + 24, 0, 0, 14 + len(os2)) + os2 + bytes(i % 16 for i in range(24)))


def main():
    os.makedirs(FOLDER, exist_ok=True)
    for write in (write_png, write_jpeg, write_webp, write_tiff, write_gif, write_bmp):
        write()
    files = sorted(sum((glob.glob(f"{TESTS}/{p}/*") for p in ("image/pictures", "reports/01-exif", "reports/02-picture-kinds")), []))
    os.makedirs(f"{TESTS}/image/case", exist_ok=True)
    save_file({os.path.relpath(f, TESTS): load_image(f).copy() for f in files}, f"{TESTS}/image/case/io.safetensors")
    with open(f"{TESTS}/image/case/case.json", "w") as f:
        json.dump({"kind": "pictures"}, f)


main()
