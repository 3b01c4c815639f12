"""The tasks. Importing this package registers them with Gymnasium under ``memrl/<name>-v0``.

``gymnasium.make`` gives one environment, ``gymnasium.make_vec`` the native vector environment;
both take the keyword arguments of the vector environment's constructor. The vector environment
does not reset rows by itself (``AutoresetMode.DISABLED``): once all have ended, call ``reset``.

A module here that defines ``GYMNASIUM_NAMES``, from name to vector class, is registered by that,
and its environments of one row become classes here under their names, such as ``TMazePassive``.
"""

from importlib import import_module
from pkgutil import iter_modules

import gymnasium

from memrl.envs.single import single_class

for _module in iter_modules(__path__, f"{__name__}."):
    _code = import_module(_module.name)
    for _name, _class in getattr(_code, "GYMNASIUM_NAMES", {}).items():
        _id, _vector = f"memrl/{_name}-v0", f"{_module.name}:{_class}"
        if _id not in gymnasium.registry:  # a second import must not warn of overriding
            # Entry points are text, so that Gymnasium can write a specification as JSON.
            globals()[_name] = single_class(_name, __name__, getattr(_code, _class))
            _single = f"{__name__}:{_name}"
            gymnasium.register(_id, entry_point=_single, vector_entry_point=_vector)
