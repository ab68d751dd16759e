"""JSON Schemas as grammars: everything an answer may be, and nothing that the schema would refuse."""
