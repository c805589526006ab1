"use strict";
const { Column, Entity, PrimaryColumn } = require("typeorm");

class Transfer {
  constructor(values) {
    Object.assign(this, values);
  }
}
const text = Column("text");
PrimaryColumn("text")(Transfer.prototype, "id");
Column("int4")(Transfer.prototype, "block");
Column("int4", { name: "log_index" })(Transfer.prototype, "logIndex");
for (const name of ["transaction", "token", "sender", "receiver", "value"]) text(Transfer.prototype, name);
Entity("transfer")(Transfer);

exports.Transfer = Transfer;
