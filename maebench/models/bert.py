"""BERT of Hugging Face's transformers: its weights become ours, and ours its.

Shapes: V vocabulary, D width, L tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from maebench import files
from maebench.component import parse
from maebench.data.preprocess import AsItIs
from maebench.data.tokens import KEPT, SPECIAL, Tokens, shortened_to
from maebench.encoders.inputs import TEXT, Inputs
from maebench.encoders.text import TextBase, TextModule
from maebench.errors import ConfigError, RunError
from maebench.models.reading import read_weights
from maebench.models.spec import SpecOptions, check_used
from maebench.models.weights import (
    COMPLETE,
    NO_DECODER,
    EncoderHolder,
    ForeignModel,
    Verdict,
    check_values,
    incomplete,
    shapes_alone,
)
from maebench.objectives.bert import Bert, BertModule
from maebench.rng import isolated

# bytes of a tokenizer.json: multilingual BERT's has 3 million, the largest vocabularies' 40
MOST_TOKENIZER = 2**26
LENGTH = 64  # of a window where nobody says it: that of the text data sets
# of a BERT's weights what neither features nor the prediction of tokens depend on, or what is there
# twice: the output is tied
UNREAD = ("pooler.", "cls.seq_relationship.", "embeddings.position_ids", "cls.predictions.decoder.")
# ours and transformers', of the embedding, of a block and of the head
PLAIN = {"encoder.token_embed.weight": "embeddings.word_embeddings.weight"}
NORM = {"embed_norm": "embeddings.LayerNorm"}
BLOCK = {
    "attn.proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm2": "output.LayerNorm",
}
HEAD = {
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
}
HEAD_BIAS = "cls.predictions.bias"
POSITIONS, TYPES = (
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
)


def from_bert(folder: Path, options: SpecOptions, spec: str) -> ForeignModel:
    """A folder of BertModel or BertForMaskedLM as our encoder, with its head where it has one.

    A window is [CLS] and L tokens, without [SEP].

    Raises:
        RunError: weights or tokenizer are missing or damaged.
        ConfigError: a kind of BERT that our blocks are not, or windows longer than its positions.
    """
    check_used(options, TEXT, spec)
    found = read_weights(folder)
    config, tensors = found.facts["config"], found.chosen.tensors
    own = {_plain(name): tensor for name, tensor in tensors.items()}
    _check_kind(config, spec)
    inputs, tokens, width = _windows(folder, own, options.length, spec)
    # what a config.json leaves out is BERT base's (transformers, BertConfig)
    heads = _stated(config, "num_attention_heads", 12, spec)
    if not width or width % heads or width % 4:
        raise ConfigError(f"{spec}: its {heads} heads do not divide its width of {width}")
    sizes: dict[str, Any] = {
        "width": width,
        "depth": _stated(config, "num_hidden_layers", 12, spec),
        "heads": heads,
        "mlp_ratio": _stated(config, "intermediate_size", 3072, spec) / width,
        "norm": "post",
    }
    if sizes["depth"] > len(own) // len(BLOCK):  # no block of so many could be built in time
        raise RunError(
            f"{spec}: its config.json states {sizes['depth']:,} blocks, and its {len(own)} weights "
            "cannot fill them"
        )
    layout = parse(TextBase, sizes, {}, f"{spec}: its encoder")
    whole = HEAD_BIAS in own
    with shapes_alone(own, spec):
        encoder, module = _made(layout, inputs, whole)
    named = dict(_names(encoder, whole))
    _check_weights(own, named, spec)
    parameters = dict(module.named_parameters())
    for ours, theirs in named.items():
        _check_shape(_place(parameters, ours), own[theirs], theirs)
    with isolated(0, "weights"):  # drawn, and replaced below
        encoder, module = _made(layout, inputs, whole)
    encoder.keep_positions()
    for part in (part for part in module.modules() if isinstance(part, torch.nn.LayerNorm)):
        part.eps = float(config.get("layer_norm_eps", part.eps))
    _fill(module, encoder, own, named)
    return ForeignModel(
        name=spec,
        module=module,
        preprocess=AsItIs(inputs),
        verdict=Verdict(
            text=COMPLETE if whole else NO_DECODER,
            source=spec,
            used=len(named) + 2,
            notes=tuple(note for note in (found.chosen.note,) if note),
        ),
        no_decoder="" if whole else "its weights have no head that predicts tokens",
        facts={"heads": layout.heads, "eps": config.get("layer_norm_eps"), "length": tokens.length},
        kept={KEPT: tokens.json},
    )


def _made(layout: TextBase, inputs: Inputs, whole: bool) -> tuple[TextModule, Any]:
    """The encoder, and the module around it: with BERT's head where `whole`."""
    encoder = TextModule(layout, inputs)
    return encoder, BertModule(Bert(), encoder, inputs) if whole else EncoderHolder(encoder)


def _stated(config: Mapping[str, Any], key: str, default: int, spec: str) -> int:
    """A size of a config.json.

    Raises:
        RunError: it is no whole number from 1.
    """
    value = config.get(key, default)
    if type(value) is not int or value < 1:
        raise RunError(f"{spec}: {key} of its config.json is {value!r}: a whole number from 1")
    return value


def _windows(
    folder: Path, own: Mapping[str, Tensor], asked: int | None, spec: str
) -> tuple[Inputs, Tokens, int]:
    """What the encoder is fed, its tokenizer, and the width of its tokens.

    Raises:
        RunError: embeddings or tokenizer are missing, or do not belong together.
        ConfigError: windows of `asked` tokens are longer than its positions.
    """
    words = own.get(PLAIN["encoder.token_embed.weight"])
    if words is None or POSITIONS not in own or words.ndim != 2 or own[POSITIONS].ndim != 2:
        raise incomplete(spec, {n for n in (*PLAIN.values(), POSITIONS) if n not in own}, set())
    (vocabulary, width), most = words.shape, len(own[POSITIONS]) - 1
    length = asked or min(LENGTH, most)
    if length > most:
        raise ConfigError(f"{spec}: length: it has positions for windows of {most} tokens")
    tokens = Tokens(shortened_to(_tokenizer(folder, spec), length))
    if tokens.vocabulary > vocabulary:
        raise RunError(
            f"{spec}: {KEPT} has {tokens.vocabulary:,} tokens, its weights {vocabulary:,} of them"
        )
    ids = tokens.mask_id, tokens.id_of("[CLS]")
    return Inputs(TEXT, (length,), torch.int64, 0, vocabulary, *ids), tokens, width


def _check_weights(own: Mapping[str, Tensor], named: Mapping[str, str], spec: str) -> None:
    """Refuses weights that are not all there, are of another model, or are no finite numbers.

    Raises:
        RunError: names the first few.
    """
    missing = {theirs for theirs in named.values() if theirs not in own}
    missing |= {name for name in (POSITIONS, TYPES) if name not in own}
    unused = {n for n in own.keys() - set(named.values()) - {POSITIONS, TYPES}}
    unused = {n for n in unused if not n.startswith(UNREAD)}
    if missing or unused:
        raise incomplete(spec, missing, unused)
    check_values({n: t for n, t in own.items() if not n.startswith(UNREAD)}, spec)


def _plain(name: str) -> str:
    """A weight's name without `bert.`; older files call the two of a norm gamma and beta."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("Norm.beta", "Norm.bias")


def _check_kind(config: Mapping[str, Any], spec: str) -> None:
    """Refuses what our blocks do not compute.

    Raises:
        ConfigError: names it.
    """
    wanted = {
        "hidden_act": ("gelu", "gelu"),
        "position_embedding_type": ("absolute", "absolute"),
        "is_decoder": (False, False),
        "add_cross_attention": (False, False),
    }
    for key, (value, default) in wanted.items():
        if config.get(key, default) != value:
            raise ConfigError(f"{spec}: its {key} is {config[key]!r}, and {value!r} is wanted")


def _tokenizer(folder: Path, spec: str) -> str:
    """The folder's tokenizer as JSON.

    Raises:
        RunError: it has none that the tokenizers library reads.
    """
    path = folder / KEPT
    try:
        if path.stat().st_size > MOST_TOKENIZER:
            raise RunError(
                f"{spec}: {KEPT} has {path.stat().st_size:,} bytes, and {MOST_TOKENIZER:,} are the "
                "most that is read"
            )
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunError(
            f"{spec}: {KEPT} is wanted beside its weights, which turns text into its tokens: "
            f"{error}"
        ) from error


def _names(encoder: Any, whole: bool) -> Iterator[tuple[str, str]]:
    """Our names and transformers', without `bert.`; of queries, keys and values the queries'."""
    yield from PLAIN.items()
    pairs = [(f"encoder.{ours}", theirs) for ours, theirs in NORM.items()]
    for number in range(encoder.depth):
        start = f"encoder.layer.{number}."
        pairs += [(f"encoder.blocks.{number}.{o}", start + t) for o, t in BLOCK.items()]
        for part in ("query", "key", "value"):
            ours = f"encoder.blocks.{number}.attn.qkv:{part}"
            pairs.append((ours, f"{start}attention.self.{part}"))
    if whole:
        pairs += HEAD.items()
        yield "bias", HEAD_BIAS
    for ours, theirs in pairs:
        yield from ((f"{ours}.{kind}", f"{theirs}.{kind}") for kind in ("weight", "bias"))


@torch.no_grad()
def _fill(
    module: Any,
    encoder: Any,
    own: Mapping[str, Tensor],
    named: Mapping[str, str],
) -> None:
    """Copies weights to their places; what is added to every token is added once."""
    parameters = dict(module.named_parameters())
    for ours, theirs in named.items():
        _place(parameters, ours).copy_(own[theirs])
    places_LD = own[POSITIONS][: 1 + encoder.grid[1]] + own[TYPES][0]
    encoder.pos_embed.copy_(places_LD[None])


def _place(parameters: Mapping[str, Tensor], ours: str) -> Tensor:
    """The parameter of a name, or the third of one that holds queries, keys and values."""
    name, colon, rest = ours.partition(":")
    if not colon:
        return parameters[ours]
    part, kind = rest.split(".")
    return parameters[f"{name}.{kind}"].chunk(3)[("query", "key", "value").index(part)]


def _check_shape(place: Tensor, value: Tensor, name: str) -> None:
    if place.shape != value.shape:
        raise RunError(f"{name} is {tuple(value.shape)}, and {tuple(place.shape)} is wanted")


def to_bert(module: Any, name: str, out: Path, kept: Mapping[str, str]) -> list[str]:
    """Writes a folder that transformers' BertForMaskedLM and its tokenizer load as they are.

    Args:
        module: the objective's module around the encoder.
        name: of the run, for messages.
        out: the folder.
        kept: what the run has kept of its data set: the tokenizer.

    Raises:
        ConfigError: BertForMaskedLM cannot hold this model, with the reason.
    """
    encoder = module.encoder
    if not isinstance(module, BertModule) or not isinstance(encoder, TextModule):
        raise ConfigError(
            f"{name} cannot be exported to hf: transformers' BertForMaskedLM holds a text encoder "
            "with the head of objective bert"
        )
    if not isinstance(encoder.norm, torch.nn.Identity):
        raise ConfigError(
            f"{name} cannot be exported to hf: its norms stand before its branches, and BERT's "
            "after; pretrain with -o encoder.norm=post"
        )
    if KEPT not in kept:
        raise ConfigError(f"{name} cannot be exported to hf: it has kept no {KEPT}")
    tokens = Tokens(kept[KEPT])
    parameters = dict(module.named_parameters())
    tensors = {
        theirs if theirs.startswith("cls.") else f"bert.{theirs}": _place(parameters, ours)
        for ours, theirs in _names(encoder, whole=True)
    }
    tensors[f"bert.{POSITIONS}"] = encoder.pos_embed[0]
    tensors[f"bert.{TYPES}"] = torch.zeros(2, encoder.width)
    config = _config_of(encoder, tokens)
    special = {f"{each.strip('[]').lower()}_token": each for each in SPECIAL}
    how = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1 + encoder.grid[1]}

    def fill(beside: Path) -> None:
        files.write_json(beside / "config.json", config)
        files.write_text(beside / KEPT, tokens.json)
        files.write_json(beside / "tokenizer_config.json", how | special)
        plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
        save_file(plain, beside / "model.safetensors", metadata={"format": "pt"})

    files.write_folder(out, fill)
    return [
        f"load it: transformers.BertForMaskedLM.from_pretrained({str(out)!r})",
        "tokens: [CLS] before a window, and no [SEP]",
    ]


def _config_of(encoder: Any, tokens: Tokens) -> dict[str, Any]:
    """The config.json of a BertForMaskedLM of this size."""
    first: Any = encoder.blocks[0]
    return {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": encoder.inputs.vocabulary,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": first.attn.num_heads,
        "intermediate_size": first.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "max_position_embeddings": 1 + encoder.grid[1],
        "type_vocab_size": 2,
        "layer_norm_eps": first.norm1.eps,
        "pad_token_id": tokens.id_of("[PAD]"),
        "tie_word_embeddings": True,
    }
