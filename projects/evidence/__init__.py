"""``make evidence``: train semantic and dense networks side by side, measure them, and write down what came out.

``plan`` says what is trained, ``runs`` trains it, ``measure`` counts and times it, ``judge`` compares twins, ``claims``
judges what the papers claim by rules, ``report`` and ``plots`` make the page, and ``__main__`` is the front of all.
"""
