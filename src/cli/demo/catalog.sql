-- The catalog: what the federation publishes, for whoever writes a receiver. Run by the operator.

select outbox.define_event_type('competition.created', version => '1',
    description => 'A competition is open, with its list of teams.',
    schema  => '{"type": "object", "required": ["competition", "teams"], "properties": {
                 "competition": {"type": "object", "required": ["id", "name", "format", "level", "starts_on", "club"]},
                 "teams": {"type": "integer", "minimum": 2}}}',
    example => '{"competition": {"id": "2025-13-01", "name": "Concours du Vieux-Port", "format": "triplette",
                 "level": "regional", "starts_on": "2025-04-05", "club": {"id": "1302", "name": "La Boule Phocéenne", "department": "13"}},
                 "teams": 16}');

select outbox.define_event_type('competition.completed', version => '1',
    description => 'The final has been played.',
    schema  => '{"type": "object", "required": ["competition", "winner", "games"], "properties": {
                 "competition": {"type": "object"}, "winner": {"type": "object", "required": ["team", "players"]},
                 "games": {"type": "integer"}}}',
    example => '{"competition": {"id": "2025-13-01"}, "winner": {"team": 7, "players": [{"license": "13020004", "name": "Zoé Garcin"}]}, "games": 15}');

select outbox.define_event_type('result.published', version => '1',
    description => 'A game was won, at 13 points.',
    schema  => '{"type": "object", "required": ["competition", "round", "game", "winner", "loser", "score"], "properties": {
                 "round": {"enum": ["round_of_16", "quarter_final", "semi_final", "final"]},
                 "score": {"type": "array", "prefixItems": [{"const": 13}, {"type": "integer", "minimum": 0, "maximum": 12}]},
                 "fanny": {"type": "boolean", "description": "the loser scored nothing"}}}',
    example => '{"competition": {"id": "2025-13-01"}, "round": "final", "game": 1, "winner": {"team": 7}, "loser": {"team": 2}, "score": [13, 0], "fanny": true}');

select outbox.define_event_type('license.issued', version => '1',
    description => 'A member may play for a club this season.',
    schema  => '{"type": "object", "required": ["license", "member", "club"], "properties": {
                 "license": {"type": "object", "required": ["number", "season", "category", "insured"]}}}',
    example => '{"license": {"number": "13020004", "season": 2025, "category": "senior", "insured": true},
                 "member": {"id": 204, "first_name": "Zoé", "last_name": "Garcin"}, "club": {"id": "1302", "name": "La Boule Phocéenne", "department": "13"}}');

select outbox.define_event_type('license.transferred', version => '1',
    description => 'A license moved to another club; once a season at most.',
    schema  => '{"type": "object", "required": ["license", "member", "from", "to"]}',
    example => '{"license": {"number": "13020004", "season": 2025, "category": "senior", "insured": true},
                 "member": {"id": 204}, "from": {"id": "1302"}, "to": {"id": "8403"}}');

select outbox.define_event_type('ranking.updated', version => '1',
    description => 'A player''s place among the first thirty changed.',
    schema  => '{"type": "object", "required": ["license", "member", "position", "previous_position", "points"], "properties": {
                 "position": {"type": "integer", "minimum": 1}, "previous_position": {"type": ["integer", "null"]}}}',
    example => '{"license": {"number": "13020004"}, "member": {"id": 204}, "position": 3, "previous_position": 11, "points": 27}');

select outbox.define_event_type('sanction.created', version => '1',
    description => 'A player was shown a card.',
    schema  => '{"type": "object", "required": ["license", "member", "competition", "card", "reason"], "properties": {
                 "card": {"enum": ["yellow", "orange", "red"]}}}',
    example => '{"license": {"number": "13020004"}, "member": {"id": 204}, "competition": {"id": "2025-13-01"}, "card": "yellow", "reason": "one minute exceeded"}');
