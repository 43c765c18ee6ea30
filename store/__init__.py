"""The MPAI Store: a signed repository of AIMs and models, its server and its client.

The trust rules are those of The Update Framework (TUF 1.0, https://theupdateframework.github.io/specification).
``repository`` signs and publishes, ``server`` hands out bytes and holds no key, ``client`` believes nothing
that is not signed under the root it was given.
"""
