"""Who states prices: ``given`` (the configuration), ``shipped`` (our file), ``genai`` and ``litellm`` (packages).

Each offers ``find(name, sellers)``: the price of exactly this model, or None. ``sellers`` are the names that the
seller named before the model goes by, empty when none was named. May import price, config and what is below.
"""
