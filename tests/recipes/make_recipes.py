#!/usr/bin/env python3
"""Turns the safetensors files of cases into recipes, which say how their tensors are drawn again, bit for bit (README.md beside this file).

    pip install numpy
    python3 tests/recipes/make_recipes.py PATH... [--seeds N]

PATH is a file or a folder. For each FILE.safetensors it writes FILE.safetensors.recipe and, where some tensors cannot be drawn,
FILE.safetensors.stored.xz with their bytes. It tries the seeds below N (400) of torch's CPU generator, in the order in which the file's
tensors continue the generator's numbers, and looks for the rest in the files of the cases' other folders. A tensor counts as drawn only
if every bit is the same; what is not found is stored. `build/tests/make_cases` writes the files again from their recipes.
"""
import argparse, hashlib, itertools, json, math, os, struct, subprocess
import numpy as np

F32, BLOCK = np.float32, 16
ROOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cases")
PACK = os.path.join(os.path.dirname(os.path.dirname(ROOT)), "tools", "pack.sh")
SMALL = 4096  # bytes of a file that is not worth a recipe
LATE = 1 << 16  # bytes that nothing explains, for which it is worth a while to look on
WORDS = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}  # the types that are drawn
# Of a file's tensors, those of later types come first (safetensors' own order), and names are sorted.
TYPES = ["BOOL", "U8", "I8", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "F64", "I64", "U64"]


# ------------------------------------------------------------------ torch.randn on a CPU with AVX2, as draw.c has it
def fma(a, b, c):
    """a b + c rounded once: the float64 sum is made odd where it is inexact, so that the second rounding cannot err."""
    product, c = a.astype(np.float64) * np.asarray(b, np.float64), np.asarray(c, np.float64)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    bits = total.view(np.int64)
    toward = np.where((error > 0) == (total > 0), bits + 1, bits - 1)
    return np.where((error != 0) & (bits & 1 == 0), toward, bits).view(np.float64).astype(F32)


def polynomial(x, coefficients):
    y = np.full_like(x, F32(coefficients[0]))
    for c in coefficients[1:]: y = fma(y, x, F32(c))
    return y


def log(x):
    bits = x.view(np.int32)
    exponent, m = ((bits >> 23) - 126).astype(F32), ((bits & 0x7fffff) | 0x3f000000).view(F32)
    low = m < F32(0.707106781186547524)
    exponent, m = exponent - low.astype(F32), (m - F32(1)) + np.where(low, m, F32(0))
    z = m * m
    y = polynomial(m, (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
                       2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)) * m
    y = fma(y, z, exponent * F32(-2.12194440e-4))
    return fma(exponent, F32(0.693359375), m + fma(-z, F32(0.5), y))


def sine_and_cosine(x):
    """Of x >= 0."""
    octant = ((x * F32(1.27323954473516)).astype(np.int32) + 1) & ~1
    turns = octant.astype(F32)
    for part in (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8): x = fma(turns, F32(part), x)
    z = x * x
    c = polynomial(z, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)) * z
    c = fma(c, z, -(z * F32(0.5))) + F32(1)
    s = fma(polynomial(z, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)) * z, x, x)
    swapped = octant & 2 != 0
    sine, cosine = np.where(swapped, c, s), np.where(swapped, s, c)
    return np.where(octant & 4 != 0, -sine, sine), np.where((octant - 2) & 4 == 0, -cosine, cosine)


def pairs(u1, u2):
    radius = np.sqrt(F32(-2) * log(F32(1) - u1))
    sine, cosine = sine_and_cosine(F32(2 * math.pi) * u2)
    return radius * cosine + F32(0), radius * sine + F32(0)  # the mean, 0, makes -0 into 0


class Stream:
    """The numbers of one seed from some place on."""
    words = {}  # the words of the seeds used last

    def __init__(self, seed, at=0, cached=None):
        self.seed, self.at, self.cached = seed, at, cached

    def copy(self):
        return Stream(self.seed, self.at, self.cached)

    def take(self, n):
        have = Stream.words.get(self.seed)
        if have is None or len(have) < self.at + n:
            if len(Stream.words) > 8: Stream.words.clear()
            have = np.random.RandomState(self.seed)._bit_generator.random_raw(2 * (self.at + n) + 4096).astype(np.uint32)
            Stream.words[self.seed] = have
        self.at += n
        return have[self.at - n:self.at]

    def uniform(self, n):
        return (self.take(n) & 0xffffff).astype(F32) * F32(2.0 ** -24)

    def one(self):
        if self.cached is not None:
            value, self.cached = self.cached, None
            return value
        w = [int(x) for x in self.take(4)]
        u1, u2 = ((high << 32 | low) % 2 ** 53 * 2.0 ** -53 for high, low in (w[:2], w[2:]))
        radius = math.sqrt(-2 * math.log1p(-u2))
        self.cached = radius * math.sin(2 * math.pi * u1)
        return radius * math.cos(2 * math.pi * u1)

    def normal(self, n):
        if n < BLOCK: return np.array([self.one() for _ in range(n)], F32)
        out, whole = self.uniform(n), n // BLOCK * BLOCK

        def blocks(u):
            u = u.reshape(-1, 2, BLOCK // 2)
            return np.stack(pairs(u[:, 0].copy(), u[:, 1].copy()), 1).ravel()
        out[:whole] = blocks(out[:whole])
        if n % BLOCK: out[-BLOCK:] = blocks(self.uniform(BLOCK))
        return out


# ------------------------------------------------------------------ what is made of the numbers
KINDS = {  # name: (of how many dimensions at least, from which stream, values); see README.md
    "matrix": (2, "normal", lambda x, t: x / F32(math.sqrt(math.prod(t["shape"][1:])))),
    "lora_up": (2, "normal", lambda x, t: x * F32(0.3) / F32(math.sqrt(t["shape"][1]))),
    "bias": (1, "normal", lambda x, t: F32(0.1) * x),
    "gain": (1, "normal", lambda x, t: F32(1) + F32(0.2) * x),
    "normal": (1, "normal", lambda x, t: x),
    "faint": (1, "normal", lambda x, t: F32(1e-3) * x),
    "uniform": (1, "uniform", lambda x, t: x * F32(2) - F32(1)),
    "within": (1, "uniform", lambda x, t: fma(x, t["bound"] - -t["bound"], np.full_like(x, -t["bound"]))),
}
DIVISORS = {"BF16": (1, 128)}  # a division after the rounding


def rounded(x, dtype):
    if dtype == "F32": return x.view(np.uint32)
    if dtype == "F16": return x.astype(np.float16).view(np.uint16)
    bits = x.view(np.uint32)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def values(kind, divisor, x, t):
    """The bits of a tensor, or of its beginning, that is made of the numbers x."""
    x = KINDS[kind][2](x, t)
    if divisor == 1: return rounded(x, t["dtype"])
    return rounded((rounded(x, "BF16").astype(np.uint32) << 16).view(F32) / F32(divisor), t["dtype"])


def drawn(kind, divisor, stream, tensor):
    return values(kind, divisor, getattr(stream, KINDS[kind][1])(len(tensor["bits"])), tensor)


def first_numbers(stream):
    """What a tensor that is drawn next begins with, by where its numbers come from."""
    return {"normal": stream.copy().normal(BLOCK)[:1], "few": stream.copy().normal(1), "uniform": stream.copy().uniform(1)}


def read(path):
    with open(path, "rb") as file: data = file.read()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    metadata, tensors = header.pop("__metadata__", None), []
    for name, t in header.items():
        begin, end = t["data_offsets"]
        tensors.append({"name": name, "dtype": t["dtype"], "shape": t["shape"], "bytes": data[start + begin:start + end], "how": None,
                        "file": path})
    tensors.sort(key=lambda t: (-TYPES.index(t["dtype"]), t["name"]))
    return metadata, tensors, hashlib.sha256(data).hexdigest()


def layer_bound(t, by_name):
    """Within what torch draws the weights and the biases of a new layer (torch.nn.init.kaiming_uniform_ with a = sqrt(5), and 1 / sqrt(fan))."""
    if len(t["shape"]) >= 2: return F32(math.sqrt(3) * (math.sqrt(2 / 6) / math.sqrt(math.prod(t["shape"][1:]))))
    weight = by_name.get(t["name"].removesuffix(".bias") + ".weight", t)
    return F32(1 / math.sqrt(max(1, math.prod(weight["shape"][1:]))))


class Left:
    """The tensors that nothing explains yet, by what their first number would be."""
    def __init__(self, tensors):
        self.groups, by_name = {}, {t["name"]: t for t in tensors}
        for t in tensors:
            t["bound"] = layer_bound(t, by_name)
            if t["dtype"] not in WORDS or not t["bytes"]: continue
            t["bits"] = np.frombuffer(t["bytes"], WORDS[t["dtype"]])
            for kind, (dimensions, source, _) in KINDS.items():
                if len(t["shape"]) < dimensions: continue
                scale = {"matrix": math.prod(t["shape"][1:]), "lora_up": t["shape"][1]}[kind] if dimensions == 2 else t["bound"]
                if source == "normal" and len(t["bits"]) < BLOCK: source = "few"
                for divisor in DIVISORS.get(t["dtype"], (1,)):
                    group = self.groups.setdefault((kind, divisor, t["dtype"], scale, source), {})
                    group.setdefault(int(t["bits"][0]), []).append(t)

    def begun(self, numbers):
        """[(index, tensor, kind, divisor)]: the tensors that may begin with the number of that index among numbers[source]."""
        for (kind, divisor, dtype, _, source), group in self.groups.items():
            some = next(iter(group.values()))[0]
            firsts = values(kind, divisor, numbers[source], some)
            for index in np.nonzero(np.isin(firsts, list(group)))[0]:
                for t in group[int(firsts[index])]:
                    if t["how"] is None: yield int(index), t, kind, divisor

    def next(self, stream):
        """(tensor, kind, the stream behind it) of the tensor that is drawn next, or None."""
        for _, t, kind, divisor in self.begun(first_numbers(stream)):
            after = stream.copy()
            if len(t["bits"]) >= 2 * BLOCK and KINDS[kind][1] == "normal":  # most candidates differ in their second number
                block = values(kind, divisor, stream.copy().normal(BLOCK), t)
                if not np.array_equal(block, t["bits"][:BLOCK]): continue
            if np.array_equal(drawn(kind, divisor, after, t), t["bits"]):
                how = f"within {t['bound']:.9g}" if kind == "within" else kind
                return t, how if divisor == 1 else f"{how}/{divisor}", after
        return None

    def any(self):
        return any(t["how"] is None for group in self.groups.values() for ts in group.values() for t in ts)

    def bytes(self):
        return sum({t["name"]: len(t["bytes"]) for group in self.groups.values() for ts in group.values() for t in ts if t["how"] is None}.values())

    def sizes(self):
        return sorted({len(t["bits"]) for group in self.groups.values() for ts in group.values() for t in ts})


def follow(left, stream, lines):
    """Explains tensors by the stream's numbers as long as one is found; a tensor that was drawn and then replaced is skipped."""
    while left.any():
        found = left.next(stream)
        if found is None:
            for n in left.sizes():
                ahead = stream.copy()
                ahead.normal(n)
                if found := left.next(ahead):
                    lines.append((None, f"skip {n}"))
                    break
        if found is None: return
        t, how, stream = found
        t["how"] = how
        lines.append((t, how))


def starts(left, numbers):
    """The seeds whose numbers a tensor begins with."""
    for seed in sorted({index for index, *_ in left.begun(numbers)}):
        if left.any() and left.next(Stream(seed)): yield seed


def follow_late(left, seeds, lines):
    """The same for seeds whose first tensors were replaced: tensors that were since drawn anew, each from a seed of its own."""
    seeds_of = [t is None and how.startswith("seed ") for t, how in lines] + [True]
    alone = sorted({math.prod(t["shape"]) for i, (t, _) in enumerate(lines) if t is not None and seeds_of[i - 1] and seeds_of[i + 1]})
    orders = [order for n in (1, 2) for order in itertools.permutations(alone, n)]
    for seed, order in itertools.product(range(seeds), orders):
        stream = Stream(seed)
        for n in order: stream.normal(n)
        if left.next(stream):
            lines += [(None, f"seed {seed}")] + [(None, f"skip {n}") for n in order]
            follow(left, stream, lines)


def write(path, metadata, lines, tensors, digest, sources):
    """lines: (tensor, how) in the order of drawing, or (None, text)."""
    text, dtype = [f"sha256 {digest}"], None
    if metadata is not None: text.append("metadata " + json.dumps(metadata, separators=(",", ":"), ensure_ascii=False))

    def add(t, how):
        nonlocal dtype
        if t["dtype"] != dtype:
            dtype = t["dtype"]
            text.append(f"type {dtype}")
        text.append(f"{t['name']} {','.join(map(str, t['shape'])) or '-'} {how}")
    for t, how in lines:
        text.append(how) if t is None else add(t, how)
    stored, source = [], None
    for t in tensors:
        if isinstance(t["how"], str): continue
        found = None if not any(t["bytes"]) else t["how"] or sources.find(t, path)
        if not any(t["bytes"]): add(t, "zero")
        elif is_one(t): add(t, "one")
        elif found:
            if found[0] != source:
                source = found[0]
                text.append("from " + os.path.relpath(source, os.path.dirname(path)))
            add(t, found[1])
        else:
            stored.append(t["bytes"])
            add(t, "stored")
    with open(path + ".recipe", "w") as file: file.write("\n".join(text) + "\n")
    for old in (path + ".stored", path + ".stored.xz"):
        if os.path.exists(old): os.remove(old)
    if stored:
        with open(path + ".stored", "wb") as file: file.write(b"".join(stored))
        subprocess.run([PACK, "4", path + ".stored"], check=True)
    return sum(map(len, stored))


class Sources:
    """Tensors of models below ROOT, of which other files hold copies, rows one below the other (fused), or halves in turn (swapped)."""
    PREFIX = 64

    def __init__(self, paths):
        self.by_prefix = {}
        for path in paths:
            for t in read(path)[1]:
                if len(t["bytes"]) >= 16: self.by_prefix.setdefault(t["bytes"][:self.PREFIX], []).append(t)

    def pieces(self, data, dtype, path, file):
        names = []
        while data:
            for t in self.by_prefix.get(data[:self.PREFIX], ()):
                if t["dtype"] == dtype and data.startswith(t["bytes"]) and t["file"] < path and file in (None, t["file"]):
                    break
            else:
                return None
            file, data = t["file"], data[len(t["bytes"]):]
            names.append(t["name"])
        return file, names

    def find(self, t, path):
        half = len(t["bytes"]) // 2
        if found := self.pieces(t["bytes"], t["dtype"], path, None): return found[0], "copy " + " ".join(found[1])
        found = self.pieces(t["bytes"][half:] + t["bytes"][:half], t["dtype"], path, None)
        return (found[0], "swapped " + found[1][0]) if found and len(found[1]) == 1 else None


def is_one(t):
    return t["dtype"] in WORDS and set(t["bits"].tolist()) == {int(rounded(np.ones(1, F32), t["dtype"])[0])}


def files_of(path):
    if not os.path.isdir(path): return [path]
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(".safetensors"))


def same_files(paths):
    """For each file below the paths that equals one of another folder before it: a recipe that says so. git is to ignore such files."""
    first, ignored = {}, []
    for folder, _, names in sorted(os.walk(ROOT)):
        for path in (os.path.join(folder, name) for name in sorted(names)):
            if os.path.getsize(path) < SMALL or path.endswith((".recipe", ".stored", ".xz", "case.json")) or os.path.exists(path + ".recipe"): continue
            with open(path, "rb") as file: digest = hashlib.sha256(file.read()).hexdigest()
            original = first.setdefault(digest, path)
            if original == path or not any(path.startswith(os.path.abspath(p)) for p in paths): continue
            with open(path + ".recipe", "w") as file: file.write(f"sha256 {digest}\nsame {os.path.relpath(original, folder)}\n")
            ignored.append("/" + os.path.relpath(path, ROOT))
    with open(os.path.join(ROOT, ".gitignore"), "a") as file: file.writelines(line + "\n" for line in ignored)
    print(f"{len(ignored)} files are the same as others")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--copies", action="store_true", help="look for copies first, and draw only what is none")
    parser.add_argument("--same", action="store_true", help="look for whole files that are the same as others, of any kind, instead")
    arguments = parser.parse_args()
    if arguments.same: return same_files(arguments.paths)
    numbers = [first_numbers(Stream(seed)) for seed in range(arguments.seeds)]
    numbers = {source: np.concatenate([n[source] for n in numbers]) for source in numbers[0]}
    sources = Sources(files_of(ROOT))
    for path in [os.path.abspath(f) for p in arguments.paths for f in files_of(p)]:
        metadata, tensors, digest = read(path)
        lines, shards = [], []
        if arguments.copies:
            for t in tensors: t["how"] = sources.find(t, path)
        left = Left(tensors)
        if "-of-" in path:  # one draw goes through all the shards of a model
            for other in files_of(os.path.dirname(path)):
                if other != path: shards += read(other)[1]
            left = Left(tensors + shards)
        for seed in starts(left, numbers):
            lines.append((None, f"seed {seed}"))
            follow(left, Stream(seed), lines)
        if left.bytes() >= LATE: follow_late(left, arguments.seeds, lines)
        lines = [(None, f"skip {len(t['bits'])}") if t is not None and t["file"] != path else (t, how) for t, how in lines]
        stored = write(path, metadata, lines, tensors, digest, sources)
        count = sum(t["how"] is not None for t in tensors)
        print(f"{os.path.relpath(path)}: {count} of {len(tensors)} tensors drawn or copied, {stored} bytes stored", flush=True)


if __name__ == "__main__":
    main()
