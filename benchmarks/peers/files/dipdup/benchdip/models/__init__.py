"""One table."""

from dipdup import fields
from dipdup.models import Model


class Transfer(Model):
    id = fields.BigIntField(primary_key=True)
    block = fields.IntField()
    log_index = fields.IntField()
    transaction = fields.TextField()
    token = fields.TextField()
    sender = fields.TextField()
    receiver = fields.TextField()
    value = fields.TextField()
