"""The egress budget of a model: how fast its readers together can send it, and how long that takes."""
