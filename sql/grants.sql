-- Who may do what. Re-applied by outboxd migrate after the functions; each role is tested, allowed and
-- refused. Everything else belongs to the owner of the schema alone.

grant usage on schema outbox to outbox_producer, outbox_operator, outbox_viewer, outbox_relay;
-- The last two, because the views outbox.delivery and outbox.role_binding run with the rights of who reads them.
grant usage on schema outbox_relay to outbox_relay, outbox_viewer, outbox_operator;
grant usage on schema outbox_http to outbox_producer, outbox_operator, outbox_viewer;

-- outbox_producer: events in, by any of the two ways. event_seq and xact are not theirs to give.
grant insert (event_id, tenant_id, type, payload, occurred_at, ordering_key, priority, deliver_at, metadata) on outbox.event to outbox_producer;
grant usage on sequence outbox.event_event_seq_seq to outbox_producer;
-- What the trigger on outbox.event asks, as whoever inserts.
grant execute on function outbox_relay.is_unacceptable to outbox_producer;
grant execute on function outbox.publish, outbox.published, outbox.assert_published to outbox_producer;

-- outbox_viewer: reads all but secrets and payloads.
grant select (event_seq, event_id, tenant_id, type, occurred_at, ordering_key, priority, deliver_at, addressed_to) on outbox.event to outbox_viewer;
grant select on outbox.event_type, outbox.subscription, outbox.subscription_health, outbox.signing_key, outbox.retry_policy,
    outbox.stopped_key, outbox.delivery, outbox.attempt, outbox.setting to outbox_viewer, outbox_operator;
grant select on outbox.audit, outbox.token, outbox.role_binding to outbox_viewer, outbox_operator;
-- What outbox.delivery and outbox.role_binding read.
grant select (subscription_id, event_seq, state, attempts, next_attempt_at, epoch, last_status_code, last_error, created_at, updated_at)
    on outbox_relay.queue to outbox_viewer, outbox_operator;
grant select on outbox_relay.finished to outbox_viewer, outbox_operator;
grant select on outbox_relay.role_tenant to outbox_viewer, outbox_operator;
grant select (epoch, name) on outbox_relay.relay to outbox_viewer, outbox_operator;
-- What the policies call.
grant execute on function outbox_relay.bound_tenants, outbox_relay.bound_subscriptions to outbox_producer, outbox_viewer, outbox_operator;
grant execute on function outbox.status, outbox.explain, outbox.unaccounted, outbox.activity, outbox.relays, outbox.next_attempts
    to outbox_viewer, outbox_operator;

-- outbox_operator: reads all but secrets, and operates.
grant select on outbox.event to outbox_operator;
grant update (name, url, event_types, filter, headers, signature, signature_header, envelope, retry_policy, timeout, max_in_flight, rate_limit, ordered, description, tls)
    on outbox.subscription to outbox_operator;
grant insert, update, delete on outbox.retry_policy to outbox_operator;
grant execute on function outbox.define_event_type, outbox.archive_event_type, outbox.subscribe, outbox.pause, outbox.resume,
    outbox.unsubscribe, outbox.rotate_secret, outbox.send_test, outbox.replay(bigint, bigint, text), outbox.replay(uuid, bigint, text),
    outbox.replay_failed, outbox.replay_missing, outbox.cancel, outbox.skip, outbox.park, outbox.hold, outbox.release, outbox.adopt, outbox.set,
    outbox.published, outbox.assert_published, outbox.create_token, outbox.revoke_token to outbox_operator;
grant execute on function outbox.retry_schedule to outbox_viewer, outbox_operator;

-- outbox_relay: calls the functions of the daemon; of the tables it reads only which schema is there.
grant execute on function outbox_relay.register, outbox_relay.resume_epoch, outbox_relay.fence, outbox_relay.tick, outbox_relay.expand,
    outbox_relay.begin_trial, outbox_relay.try_filters,
    outbox_relay.claim, outbox_relay.hand_back, outbox_relay.locked, outbox_relay.record, outbox_relay.add_health, outbox_relay.load_subscriptions, outbox_relay.maintain,
    outbox_relay.reconcile, outbox_relay.add_sample, outbox_relay.enter, outbox_relay.open_session, outbox_relay.close_session,
    outbox_relay.begin_request, outbox_relay.end_request, outbox_relay.has_tokens, outbox_relay.gauges,
    outbox_relay.subscription_gauges, outbox_relay.catalog,
    outbox_relay.unsealed, outbox_relay.sealed_otherwise, outbox_relay.seal, outbox_relay.secret_counts, outbox_relay.offer_for,
    outbox_relay.offer_key, outbox_relay.name_key,
    outbox.status to outbox_relay;
grant select on outbox_relay.applied_file, outbox_relay.migration to outbox_relay;

-- The HTTP API. Each function runs with the rights of its caller, so that it can do no more than the role could
-- in SQL: the daemon takes the role of the token for the time of a request.
grant execute on function outbox_http.tenant_of, outbox_http.publish_event to outbox_producer;
grant execute on function outbox_http.tenant_of, outbox_http.require_unbound, outbox_http.position_of, outbox_http.live_keys, outbox_http.webhook, outbox_http.find_webhook,
    outbox_http.delivery, outbox_http.find_delivery, outbox_http.deliveries, outbox_http.deliveries_of_event, outbox_http.fits, outbox_http.find_event, outbox_http.event_type,
    outbox_http.setting, outbox_http.token,
    outbox_http.explain_event, outbox_http.get_activity, outbox_http.get_delivery, outbox_http.get_event_type, outbox_http.get_status,
    outbox_http.get_webhook, outbox_http.list_audit, outbox_http.list_deliveries, outbox_http.list_event_types, outbox_http.list_relays,
    outbox_http.list_retry_policies, outbox_http.list_settings, outbox_http.list_tokens, outbox_http.list_webhook_deliveries, outbox_http.list_webhooks to outbox_viewer, outbox_operator;
grant execute on function outbox_http.get_event, outbox_http.refuse_reference,
    outbox_http.archive_event_type, outbox_http.cancel_delivery, outbox_http.change_setting, outbox_http.create_webhook, outbox_http.define_event_type,
    outbox_http.delete_webhook, outbox_http.get_event, outbox_http.hold, outbox_http.park_delivery, outbox_http.pause_webhook,
    outbox_http.release, outbox_http.replay_deliveries, outbox_http.replay_delivery, outbox_http.replay_failed, outbox_http.replay_missing,
    outbox_http.resume_webhook, outbox_http.revoke_token, outbox_http.rotate_secret, outbox_http.send_test, outbox_http.skip_delivery,
    outbox_http.update_webhook to outbox_operator;
