"""Reads a manifest and its parts as docs/strangers.md describes them, with Python's library and openssl alone: check_manifest.py MANIFEST.json"""
import base64, hashlib, json, os, struct, subprocess, sys, tempfile


def text(value):
    value = value.encode()
    return struct.pack("<I", len(value)) + value


def digest_of(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = json.loads(data[8 : 8 + size])
    notes = tensors.pop("__metadata__")
    first, last, finish = int(notes["tessera.first"]), int(notes["tessera.last"]), notes["tessera.has_last_block"] == "true"
    out = b"tessera-part-1\0" + text(notes["tessera.class"]) + hashlib.sha256(notes["tessera.configuration"].encode()).digest()
    out += struct.pack("<IIII", first, last, finish, len(tensors))
    for name in sorted(tensors, key=str.encode):
        t = tensors[name]
        begin, end = t["data_offsets"]
        out += text(name) + text(t["dtype"]) + struct.pack("<I", len(t["shape"])) + b"".join(struct.pack("<Q", n) for n in t["shape"])
        out += struct.pack("<Q", end - begin) + data[8 + size + begin : 8 + size + end]
    return hashlib.sha256(out).hexdigest()


manifest = json.load(open(sys.argv[1]))
signed = b"tessera-manifest-1\0" + b"".join(text(manifest[key]) for key in ("specification", "model", "class", "configuration"))
signed += struct.pack("<II", manifest["blocks"], len(manifest["parts"]))
for part in manifest["parts"]:
    found = digest_of(os.path.join(os.path.dirname(sys.argv[1]), part["file"]))
    assert found == part["digest"], (part["file"], found)
    signed += text(part["file"]) + struct.pack("<IIIQ", part["first"], part["last"], part["has_last_block"], part["bytes"])
    signed += bytes.fromhex(part["digest"])
with tempfile.TemporaryDirectory() as folder:
    for name, data in (("message", hashlib.sha256(signed).digest()), ("signature", base64.b64decode(manifest["signature"])),
                       ("key", base64.b64decode(manifest["public_key"]))):
        open(os.path.join(folder, name), "wb").write(data)
    subprocess.run("openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in message -sigfile signature", shell=True, check=True, cwd=folder)
