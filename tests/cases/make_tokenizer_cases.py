#!/usr/bin/env python3
"""Writes the tokenizer cases that go beyond those of the reference scripts: folders that hold tokenizer.json alone, padding tokens from
each of the files that may name one, BERT's options, T5's Metaspace schemes and a spiece.model with byte pieces.

    pip install transformers==5.23.0 tokenizers sentencepiece protobuf
    python3 make_tokenizer_cases.py OUT_DIR

OUT_DIR is the folder that already holds tokenizer_clip, tokenizer_t5 and tokenizer_bert (see README.md): their vocabularies are used
again. A case is a folder with `tokenizer/` and case.json: prompts, and the input_ids that the class of the pipelines gives.
"""
import argparse, io, json, os, shutil, tempfile
import sentencepiece
from transformers import BertTokenizer, CLIPTokenizer, PreTrainedTokenizerFast, T5Tokenizer

PROMPTS = [
    "", " ", "a photo of an astronaut riding a horse", "A Photo   of\tAN  Astronaut\nriding!!  ", "it's the dog's bone, we've seen 12345",
    "château d'été naïve ﬁne ½", "一只戴着帽子的猫 a cat，标点。", "emoji 🍎🐱 ok 🏳️‍🌈", "x" * 200, "word " * 100, "hello! world!!",
    "<|startoftext|>hello<|endoftext|>", "[CLS] a [MASK] b[SEP]", "</s> a<pad>b <unk>", "<extra_id_0> c <extra_id_6>d",
    "don't... stop—believing_now-ok/so (really) [yes] {no} @home #1 $5",
    "ctl\x01\x02 \x0b \x7f \u200b\ufeff end", "\u00a0nbsp\u3000wide",
    "ＦＵＬＬ width", "Ünïcödé ẞ ß İ ı", "e\u0301 ≠ \u037e", "한국어 हिन्दी العربية", "▁under a▁b", "<0x41> UD1 ctl1",
    "a" * 100 + " " + "b" * 101]
MAX_LENGTH = 77
# Where Unicode's categories decide: C1's next line, connectors, dashes, other brackets, symbols.
SIGNS = ["next\u0085line \u2028 and \u2029 ends", "a\u203fb x\u2040y _z_ \uff3f", "p\u2010q \u301c \u00ab r \u00bb \u2e28s\u2e29 \u00a1t \u00bfu",
         "5\u20ac +1 \u00b12 <3> \u00a7 4\u00b0 \u2190 \u00d7", "\u1680ogham\u2003em\u202fnarrow\u205fmath"]


def special(content, normalized=False):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False, "special": True}


class Writer:
    def __init__(self, root):
        self.root = root

    def read(self, name, file):
        with open(os.path.join(self.root, name, "tokenizer", file), encoding="utf-8") as f:
            return json.load(f)

    def case(self, name, loader, files, prompts=PROMPTS, **documents):
        """`files`: paths to copy; `documents`: JSON files by their names without the ending."""
        folder = os.path.join(self.root, name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(os.path.join(folder, "tokenizer"))
        for file in files:
            shutil.copyfile(file, os.path.join(folder, "tokenizer", os.path.basename(file)))
        for document, content in documents.items():
            with open(os.path.join(folder, "tokenizer", document + ".json"), "w", encoding="utf-8") as f:
                json.dump(content, f, ensure_ascii=False)
        tokenizer = loader.from_pretrained(os.path.join(folder, "tokenizer"))
        results = [tokenizer(p, padding="max_length", max_length=MAX_LENGTH, truncation=True) for p in prompts]
        case = {"kind": "tokenizer", "max_length": MAX_LENGTH, "padding": "max_length", "prompts": prompts,
                "input_ids": [r.input_ids for r in results], "attention_mask_ones": [sum(r.attention_mask) for r in results]}
        with open(os.path.join(folder, "case.json"), "w", encoding="utf-8") as f:
            json.dump(case, f, ensure_ascii=False)
        print(name, "ok", flush=True)

    def saved_json(self, name, loader):
        """tokenizer.json as save_pretrained writes it."""
        with tempfile.TemporaryDirectory() as folder:
            loader.from_pretrained(os.path.join(self.root, name, "tokenizer")).save_pretrained(folder)
            with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as f:
                return json.load(f)


def clip(w):
    config = w.read("tokenizer_clip", "tokenizer_config.json")
    files = [os.path.join(w.root, "tokenizer_clip", "tokenizer", f) for f in ("vocab.json", "merges.txt")]
    whole = w.saved_json("tokenizer_clip", CLIPTokenizer)
    decoder = {"0": special("!"), "789": special("<|startoftext|>", True), "790": special("<|endoftext|>")}
    without = {k: v for k, v in config.items() if k != "pad_token"}
    w.case("tokenizer_clip_json", CLIPTokenizer, [], tokenizer=whole, tokenizer_config=config)
    # SDXL's tokenizer_2 and Stable Diffusion 2: "!", id 0
    w.case("tokenizer_clip_pad_config", CLIPTokenizer, files, tokenizer_config={**config, "pad_token": "!"})
    w.case("tokenizer_clip_pad_map", CLIPTokenizer, files, tokenizer_config=without, special_tokens_map={"pad_token": "!"})
    w.case("tokenizer_clip_pad_map_wins", CLIPTokenizer, files, tokenizer_config=config, special_tokens_map={"pad_token": "!"})
    w.case("tokenizer_clip_pad_decoder", CLIPTokenizer, files, special_tokens_map={"pad_token": "<|endoftext|>"},
           tokenizer_config={**config, "pad_token": "!", "added_tokens_decoder": decoder})
    w.case("tokenizer_clip_json_pad", CLIPTokenizer, [], tokenizer=whole, tokenizer_config={**config, "pad_token": "!"})
    w.case("tokenizer_clip_json_pad_map", CLIPTokenizer, [], tokenizer=whole, tokenizer_config=without,
           special_tokens_map={"pad_token": special("!")})


def bert(w):
    config = w.read("tokenizer_bert", "tokenizer_config.json")
    files = [os.path.join(w.root, "tokenizer_bert", "tokenizer", "vocab.txt")]
    whole = w.saved_json("tokenizer_bert", BertTokenizer)
    w.case("tokenizer_bert_json", BertTokenizer, [], tokenizer=whole, tokenizer_config=config)
    w.case("tokenizer_bert_cased", BertTokenizer, files, tokenizer_config={**config, "do_lower_case": False})
    w.case("tokenizer_bert_cased_plain", BertTokenizer, files, tokenizer_config={**config, "do_lower_case": False, "strip_accents": True})
    w.case("tokenizer_bert_accents", BertTokenizer, files, tokenizer_config={**config, "strip_accents": False})
    w.case("tokenizer_bert_json_no_chinese", BertTokenizer, [], tokenizer=whole,
           tokenizer_config={**config, "tokenize_chinese_chars": False})
    w.case("tokenizer_bert_json_pad", BertTokenizer, [], tokenizer=whole, tokenizer_config={**config, "pad_token": "[UNK]"})
    whole["normalizer"].update(lowercase=False, clean_text=False, strip_accents=True, handle_chinese_chars=False)
    w.case("tokenizer_bert_json_unnamed", PreTrainedTokenizerFast, [], tokenizer=whole,
           tokenizer_config={**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def t5(w):
    config = w.read("tokenizer_t5", "tokenizer_config.json")
    spiece = os.path.join(w.root, "tokenizer_t5", "tokenizer", "spiece.model")
    whole = w.saved_json("tokenizer_t5", T5Tokenizer)
    whole["normalizer"] = None  # T5's character map is 240 kB; tokenizer_t5 and the pipelines' cases have it
    w.case("tokenizer_t5_json", T5Tokenizer, [], tokenizer=whole, tokenizer_config=config)
    w.case("tokenizer_t5_extra_ids", T5Tokenizer, [spiece], tokenizer_config={**config, "extra_ids": 7})
    w.case("tokenizer_t5_json_extra_ids", T5Tokenizer, [], tokenizer=whole, tokenizer_config={**config, "extra_ids": 7})
    for scheme in ("always", "first", "never"):
        whole["pre_tokenizer"]["pretokenizers"][1]["prepend_scheme"] = scheme
        w.case("tokenizer_t5_json_" + scheme, PreTrainedTokenizerFast, [], tokenizer=whole,
               tokenizer_config={**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    w.case("tokenizer_t5_json_named", T5Tokenizer, [], tokenizer=whole, tokenizer_config=config)  # the class's own scheme: always


def mt5(w):
    """What mT5's spiece.model has and T5's has not: byte pieces, user-defined and control ones."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([p for p in PROMPTS if p.isprintable()]), model_writer=model, vocab_size=450, model_type="unigram",
        byte_fallback=True, user_defined_symbols=["UD1"], control_symbols=["ctl1"], pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2, normalization_rule_name="identity")
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    # a run of one letter has several segmentations of the same score: left out
    prompts = [p for p in PROMPTS if "aaa" not in p and "xxx" not in p]
    with tempfile.TemporaryDirectory() as folder:
        spiece = os.path.join(folder, "spiece.model")
        with open(spiece, "wb") as f:
            f.write(model.getvalue())
        w.case("tokenizer_mt5", T5Tokenizer, [spiece], prompts, tokenizer_config=config)


def signs(w):
    for family, loader, names in (("clip", CLIPTokenizer, ("vocab.json", "merges.txt")), ("bert", BertTokenizer, ("vocab.txt",))):
        files = [os.path.join(w.root, "tokenizer_" + family, "tokenizer", f) for f in names]
        w.case(f"tokenizer_{family}_signs", loader, files, SIGNS, tokenizer_config=w.read("tokenizer_" + family, "tokenizer_config.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir")
    writer = Writer(parser.parse_args().out_dir)
    for family in (clip, bert, t5, mt5, signs):
        family(writer)
