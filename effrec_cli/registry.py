"""Names to classes, imported only when asked for.

A method, model or dataset family is one row: a name, the class that does the work and the dataclass that is
its schema. A third party adds rows by entry points: group `effrec.methods`, `effrec.models` or
`effrec.datasets`, value `module:ROW`, where ROW is a `Row`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from effrec_cli.errors import unknown_name


@dataclass(frozen=True)
class Row:
    """One registered thing.

    Attributes:
        target: `module:Class` of the implementation.
        schema: `module:Dataclass` of its settings; the module imports no torch.
        summary: one line for `effrec ls`.
        tasks: what a method trains or a model goes with, as its class says, so that a list of them need not
            import torch; None asks the class.
    """

    target: str
    schema: str
    summary: str
    tasks: tuple[str, ...] | None = None


_METHODS = {
    "cce": Row(
        "effrec_cli.methods.cce:CCE",
        "effrec_cli.schema.method_cce:CCEConfig",
        "cross-entropy with negative sampling, without logits or id tensors",
        ("next_item",),
    ),
    "gram": Row(
        "effrec_cli.methods.gram:GRAM",
        "effrec_cli.schema.method_gram:GRAMConfig",
        "text or image encoders trained once an item, not once an occurrence",
        ("next_item", "news", "knowledge_tracing"),
    ),
    "iisan": Row(
        "effrec_cli.methods.iisan:IISAN",
        "effrec_cli.schema.method_iisan:IISANConfig",
        "a side network beside frozen text and image encoders, whose hidden states are kept",
        ("next_item",),
    ),
    "cadc": Row(
        "effrec_cli.methods.cadc:CADC",
        "effrec_cli.schema.method_cadc:CADCConfig",
        "a network on a sample of the data, with vectors from a factorisation of all of them",
        ("top_n", "ctr"),
    ),
    "dsl": Row(
        "effrec_cli.methods.dsl:DSL",
        "effrec_cli.schema.method_dsl:DSLConfig",
        "tables that store few numbers from the first step to serving, where they matter most",
        ("top_n", "next_item"),
    ),
    "pop": Row(
        "effrec_cli.methods.pop:Popularity",
        "effrec_cli.schema.method_pop:PopularityConfig",
        "reference point: the most popular items",
        ("none",),
    ),
    "itemknn": Row(
        "effrec_cli.methods.itemknn:ItemKNN",
        "effrec_cli.schema.method_itemknn:ItemKNNConfig",
        "reference point: items like those in the history",
        ("none",),
    ),
    "ease": Row(
        "effrec_cli.methods.ease:EASE",
        "effrec_cli.schema.method_ease:EASEConfig",
        "reference point: closed-form linear autoencoder",
        ("none",),
    ),
    "ials": Row(
        "effrec_cli.methods.ials:IALSMethod",
        "effrec_cli.schema.method_ials:IALSConfig",
        "reference point: implicit matrix factorisation by alternating least squares",
        ("none",),
    ),
    "rsvd": Row(
        "effrec_cli.methods.rsvd:RSVDMethod",
        "effrec_cli.schema.method_rsvd:RSVDConfig",
        "reference point: randomised singular value decomposition",
        ("none",),
    ),
    "bpr": Row(
        "effrec_cli.methods.bpr:BPRMethod",
        "effrec_cli.schema.method_bpr:BPRConfig",
        "reference point: matrix factorisation that learns to rank",
        ("none",),
    ),
    "explicit_als": Row(
        "effrec_cli.methods.explicit_als:ExplicitALSMethod",
        "effrec_cli.schema.method_explicit_als:ExplicitALSConfig",
        "reference point: matrix factorisation of ratings",
        ("none",),
    ),
}

_MODELS = {
    "sasrec": Row(
        "effrec_cli.models.sasrec:SASRec",
        "effrec_cli.schema.model_sasrec:SASRecConfig",
        "causal Transformer over item sequences (next_item)",
        ("next_item",),
    ),
    "bert4rec": Row(
        "effrec_cli.models.bert4rec:BERT4Rec",
        "effrec_cli.schema.model_bert4rec:BERT4RecConfig",
        "Transformer that sees both sides of masked items (next_item)",
        ("next_item",),
    ),
    "two_tower": Row(
        "effrec_cli.models.two_tower:TwoTower",
        "effrec_cli.schema.model_two_tower:TwoTowerConfig",
        "a user's and an item's vector, each from a network over id and attributes (top_n)",
        ("top_n",),
    ),
    "bpr_mf": Row(
        "effrec_cli.models.bpr_mf:BPRMF",
        "effrec_cli.schema.model_bpr_mf:BPRMFConfig",
        "the product of a user's and an item's vector (top_n)",
        ("top_n",),
    ),
    "lightgcn": Row(
        "effrec_cli.models.lightgcn:LightGCN",
        "effrec_cli.schema.model_lightgcn:LightGCNConfig",
        "products of vectors propagated over the graph of training rows (top_n)",
        ("top_n",),
    ),
    "ultragcn": Row(
        "effrec_cli.models.ultragcn:UltraGCN",
        "effrec_cli.schema.model_ultragcn:UltraGCNConfig",
        "the product of vectors, by a loss that stands for endless propagation (top_n)",
        ("top_n",),
    ),
    "multvae": Row(
        "effrec_cli.models.multvae:MultVAE",
        "effrec_cli.schema.model_multvae:MultVAEConfig",
        "an autoencoder of users' items, which ranks for users that training never saw (top_n)",
        ("top_n",),
    ),
    "neumf": Row(
        "effrec_cli.models.neumf:NeuMF",
        "effrec_cli.schema.model_neumf:NeuMFConfig",
        "a weighed product of vectors beside a network over them (top_n)",
        ("top_n", "ctr"),
    ),
    "dlrm": Row(
        "effrec_cli.models.dlrm:DLRM",
        "effrec_cli.schema.model_dlrm:DLRMConfig",
        "products of the vectors of ids and attributes, read by a network (top_n)",
        ("top_n", "ctr"),
    ),
    "nrms": Row(
        "effrec_cli.models.nrms:NRMS",
        "effrec_cli.schema.model_nrms:NRMSConfig",
        "users as the news they clicked, weighed by attention (news)",
        ("news",),
    ),
    "dkt": Row(
        "effrec_cli.models.dkt:DKT",
        "effrec_cli.schema.model_dkt:DKTConfig",
        "LSTM over answers, its output tied to item vectors (knowledge_tracing)",
        ("knowledge_tracing",),
    ),
    "dkt_transformer": Row(
        "effrec_cli.models.dkt:TransformerDKT",
        "effrec_cli.schema.model_dkt_transformer:TransformerDKTConfig",
        "the same with a causal Transformer (knowledge_tracing)",
        ("knowledge_tracing",),
    ),
    "none": Row(
        "effrec_cli.models.none:NoModel",
        "effrec_cli.schema.model_none:NoModelConfig",
        "for methods without a network",
        ("none",),
    ),
}

_DATASETS = {
    "synthetic": Row(
        "effrec_cli.data.synthetic:SyntheticSource",
        "effrec_cli.schema.dataset_synthetic:SyntheticConfig",
        "a simulator with planted structure and a known ceiling",
    ),
    "movielens": Row(
        "effrec_cli.data.movielens:MovieLensSource",
        "effrec_cli.schema.dataset_movielens:MovieLensConfig",
        "GroupLens ratings in their published layouts",
    ),
    "mind": Row(
        "effrec_cli.data.mind:MindSource",
        "effrec_cli.schema.dataset_mind:MindConfig",
        "Microsoft News: impressions with clicks, and the texts of the news",
    ),
    "table": Row(
        "effrec_cli.data.table:TableSource",
        "effrec_cli.schema.dataset_table:TableConfig",
        "any csv or parquet with named columns",
    ),
    "sequences": Row(
        "effrec_cli.data.sequences:SequencesSource",
        "effrec_cli.schema.dataset_sequences:SequencesConfig",
        "a user's items a line, and titles, as IISAN was published with",
    ),
    "lightgcn": Row(
        "effrec_cli.data.lightgcn:LightGCNSource",
        "effrec_cli.schema.dataset_lightgcn:LightGCNConfig",
        "a training and a test file of numbers, as LightGCN and DSL were published with",
    ),
    "amazon": Row(
        "effrec_cli.data.amazon:AmazonSource",
        "effrec_cli.schema.dataset_amazon:AmazonConfig",
        "Amazon reviews and metadata as published in 2018 and 2023",
    ),
    "sample": Row(
        "effrec_cli.data.sample_folder:SampleSource",
        "effrec_cli.schema.dataset_sample:SampleFolderConfig",
        "a folder that effrec data sample has made",
    ),
    "duolingo": Row(
        "effrec_cli.data.duolingo:DuolingoSource",
        "effrec_cli.schema.dataset_duolingo:DuolingoConfig",
        "exercises of the 2018 shared task, answered right or wrong",
    ),
}

_BUILT_IN = {"methods": _METHODS, "models": _MODELS, "datasets": _DATASETS}


@cache
def rows(kind: str) -> dict[str, Row]:
    """Returns every registered row of `kind` (methods, models or datasets) by name."""
    found = dict(_BUILT_IN[kind])
    for point in entry_points(group=f"effrec.{kind}"):
        found.setdefault(point.name, point.load())
    return found


def row(kind: str, name: str) -> Row:
    """Returns one row, or raises ConfigError with the nearest name."""
    if name not in rows(kind):
        singular = {"methods": "method", "models": "model", "datasets": "dataset family"}[kind]
        raise unknown_name(singular, name, rows(kind))
    return rows(kind)[name]


def load(path: str) -> Any:
    """Returns the object that `module:name` names."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def implementation(kind: str, name: str) -> Any:
    """Returns the class registered under `name`."""
    return load(row(kind, name).target)


def tasks(kind: str, name: str) -> tuple[str, ...]:
    """Returns what a method trains or a model goes with: by its row, or else by its class."""
    known = row(kind, name)
    return known.tasks if known.tasks is not None else tuple(getattr(load(known.target), "tasks", ()))


def schema(kind: str, name: str) -> Any:
    """Returns the dataclass of the settings of `name`; imports no torch."""
    return load(row(kind, name).schema)
