-- Who may do what. Re-applied by outboxd migrate after the functions; each role is tested, allowed and
-- refused. Everything else belongs to the owner of the schema alone.

grant usage on schema outbox to outbox_producer, outbox_operator, outbox_viewer, outbox_relay;
grant usage on schema outbox_relay to outbox_relay;

-- outbox_producer: events in, by any of the two ways. event_seq and xact are not theirs to give.
grant insert (event_id, tenant_id, type, payload, occurred_at, ordering_key, priority, deliver_at, metadata) on outbox.event to outbox_producer;
grant usage on sequence outbox.event_event_seq_seq to outbox_producer;
grant execute on function outbox.publish, outbox.published, outbox.assert_published to outbox_producer;

-- outbox_viewer: reads all but secrets and payloads.
grant select (event_seq, event_id, tenant_id, type, occurred_at, ordering_key, priority, deliver_at, addressed_to) on outbox.event to outbox_viewer;
grant select on outbox.event_type, outbox.subscription, outbox.subscription_health, outbox.signing_key, outbox.retry_policy,
    outbox.stopped_key, outbox.delivery, outbox.attempt, outbox.setting to outbox_viewer, outbox_operator;
grant execute on function outbox.status, outbox.explain, outbox.unaccounted to outbox_viewer, outbox_operator;

-- outbox_operator: reads all but secrets, and operates.
grant select on outbox.event to outbox_operator;
grant update (name, url, event_types, filter, headers, signature, signature_header, envelope, retry_policy, timeout, max_in_flight, rate_limit, ordered, description)
    on outbox.subscription to outbox_operator;
grant insert, update, delete on outbox.retry_policy to outbox_operator;
grant execute on function outbox.define_event_type, outbox.archive_event_type, outbox.subscribe, outbox.pause, outbox.resume,
    outbox.unsubscribe, outbox.rotate_secret, outbox.send_test, outbox.replay(bigint, bigint, text), outbox.replay(uuid, bigint, text),
    outbox.replay_failed, outbox.replay_missing, outbox.cancel, outbox.skip, outbox.park, outbox.hold, outbox.release, outbox.adopt, outbox.set,
    outbox.published, outbox.assert_published to outbox_operator;
grant execute on function outbox.retry_schedule to outbox_viewer, outbox_operator;

-- outbox_relay: calls the functions of the daemon; of the tables it reads only which schema is there.
grant execute on function outbox_relay.register, outbox_relay.resume_epoch, outbox_relay.fence, outbox_relay.tick, outbox_relay.expand,
    outbox_relay.claim, outbox_relay.record, outbox_relay.add_health, outbox_relay.load_subscriptions, outbox_relay.maintain,
    outbox_relay.reconcile,
    outbox.status to outbox_relay;
grant select on outbox_relay.applied_file, outbox_relay.migration to outbox_relay;
