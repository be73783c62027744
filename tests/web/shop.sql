-- A catalog as a shop would have it.
select outbox.define_event_type('order.created', 'An order was placed', version => '2', schema => '{
    "type": "object", "required": ["order_id", "total"],
    "properties": {
        "order_id": {"type": "integer", "description": "The number on the invoice"},
        "total": {"type": "number", "minimum": 0},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "customer": {"type": "object", "properties": {"email": {"type": "string", "format": "email"}, "vip": {"type": "boolean"}}}},
    "$defs": {"line": {"type": "object", "required": ["sku"],
        "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}}}}}',
    example => '{"order_id": 4711, "total": 12.50, "lines": [{"sku": "A-1", "quantity": 2}], "customer": {"email": "kim@example.com", "vip": false}}');
select outbox.define_event_type('order.paid', 'An order was paid in full', version => '1', schema => '{
    "type": "object", "required": ["order_id", "total", "currency"],
    "properties": {"order_id": {"type": "integer"}, "total": {"type": "number"}, "currency": {"type": "string", "enum": ["EUR", "USD"]}}}',
    example => '{"order_id": 4711, "total": 12.50, "currency": "EUR"}');
select outbox.define_event_type('parcel.sent', 'A parcel has left', schema => '{"type": "object"}', example => '{"parcel": "1Z"}');
select outbox.define_event_type('outbox.test');
select outbox.set('circuit_failures', '10');
