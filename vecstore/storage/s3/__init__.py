"""A store in a bucket of S3 or of a server that speaks its protocol. The only package that loads boto3.

- ``store.py`` is the `ObjectStore`; it says which requests an operation takes.
- ``client.py`` sends one request: by boto3, or, for reads, by a URL that boto3 signed (decision 0012).
- ``retry.py`` says what is sent again, ``hedge.py`` when a second request joins a slow one.
- ``uploads.py`` creates objects, whole or in parts; ``listing.py`` lists them.
- ``errors.py`` turns failures into those of the protocol; ``clock.py`` learns the server's time.
"""

from vecstore.storage.s3.store import S3Store

__all__ = ["S3Store"]
