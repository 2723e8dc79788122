"""A small engine made of nothing but what the libraries offer an adapter."""

import json
import re

import pytest
from cel_expr_python import cel
from google.protobuf import descriptor_pool

from webhook.cel import libraries
from webhook.cel.ast import checked

_STATUS = re.compile(r"^[A-Z_]+: ")


class Engine:
    """Compiles and evaluates sources that may name ``data`` and ``other``, and the libraries' own variables."""

    def __init__(self):
        document = libraries.configuration()
        document["extensions"] += [{"name": "strings", "version": 2}, {"name": "sets"}]
        pool = descriptor_pool.DescriptorPool()
        for file in libraries.message_files():
            pool.AddSerializedFile(file.SerializeToString())
        self.env = cel.NewEnv(
            descriptor_pool=pool,
            config=cel.NewEnvConfigFromYaml(json.dumps(document)),
            variables={"data": cel.Type.DYN, "other": cel.Type.DYN, **libraries.variables()},
            extensions=[*libraries.extensions(), cel.CelExtension("internal", list(libraries.functions()))],
            function_impls=dict(libraries.implementations()),
        )

    def check(self, source):
        return checked.load(self.env.compile(source).serialize())

    def compile(self, source, *, fuse=True):
        message = self.check(source)
        assert libraries.issues(message) == []
        libraries.lower(message, fuse=fuse)
        return self.env.deserialize(checked.dump(message.expr.SerializeToString()))

    def evaluate(self, source, data=None, other=None, *, fuse=True):
        """Return the plain value; raises ValueError with the engine's message, without its status."""
        result = self.compile(source, fuse=fuse).eval(self.env.Activation({"data": data, "other": other}))
        if result.type() == cel.Type.ERROR:
            raise ValueError(_STATUS.sub("", result.plain_value(), count=1))
        return None if result.type() == cel.Type.NULL else result.plain_value()


@pytest.fixture(scope="session")
def engine():
    return Engine()


@pytest.fixture(params=[True, False], ids=["fused", "each call by itself"])
def evaluate(request, engine):
    def run(source, data=None, other=None):
        return engine.evaluate(source, data, other, fuse=request.param)

    return run
