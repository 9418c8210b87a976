/* Random starts, cancels, closes and resets on several connections: every operation ends exactly once (case_end sees to
 * it), and what is received is the stream that was sent, whatever was cancelled in between.
 */
#include "contract.h"

enum { SLOTS = 8, STEPS = 4000, PIECE = 5000 };

static struct slot {
    struct pair pair;
    struct operation *receive, *send;
    size_t peer_sent, received;
    int peer_gone;
} slots[SLOTS];

static void slot_open(struct slot *slot)
{
    memset(slot, 0, sizeof *slot);
    slot->pair = connected_pair();
}

static void slot_close(struct slot *slot)
{
    if (ON_WINDOWS && slot->send != NULL) { /* wine 8: see close_with_pending_send */
        cancel(slot->pair.own, NULL);
        wait_for(slot->send);
    }
    close_own(slot->pair.own);
    if (!slot->peer_gone)
        peer_close(slot->pair.peer);
    slot_open(slot);
}

static void take_received(struct slot *slot)
{
    struct operation *receive = slot->receive;

    slot->receive = NULL;
    if (receive->status != 0) {
        CHECK(slot->peer_gone || receive->status == ERROR_OPERATION_ABORTED);
        return;
    }
    CHECK(slot->received + receive->bytes <= slot->peer_sent);
    CHECK(is_pattern(receive->data, receive->bytes, slot->received));
    slot->received += receive->bytes;
}

static void drain(struct slot *slot)
{
    char chunk[PIECE];

    if (!slot->peer_gone)
        peer_receive_some(slot->pair.peer, chunk, sizeof chunk);
}

static void feed(struct slot *slot)
{
    char chunk[PIECE];
    size_t size = random_below(PIECE) + 1;

    if (slot->peer_gone)
        return;
    pattern(chunk, size, slot->peer_sent);
    slot->peer_sent += peer_send_some(slot->pair.peer, chunk, size);
}

static void step(struct slot *slot)
{
    switch (random_below(40)) {
    case 0:
        slot_close(slot);
        break;
    case 1:
        if (!slot->peer_gone)
            peer_reset(slot->pair.peer);
        slot->peer_gone = 1;
        break;
    case 2:
        cancel(slot->pair.own, NULL);
        break;
    case 3:
        if (slot->send != NULL)
            cancel(slot->pair.own, slot->send);
        break;
    case 4: case 5:
        if (slot->receive != NULL)
            cancel(slot->pair.own, slot->receive);
        break;
    case 6: case 7: case 8: case 9: case 10: case 11:
        if (slot->send == NULL)
            slot->send = start_send_pattern(slot->pair.own, random_below(400000), 0);
        break;
    case 12: case 13: case 14: case 15: case 16: case 17: case 18: case 19:
        feed(slot);
        break;
    case 20: case 21: case 22: case 23: case 24:
        drain(slot);
        break;
    case 25: case 26: case 27: case 28:
        pump(0);
        break;
    default:
        if (slot->receive == NULL)
            slot->receive = start_receive(slot->pair.own, random_below(PIECE));
    }
}

static void every_operation_ends_exactly_once_in_a_storm(void)
{
    for (int i = 0; i < SLOTS; i++)
        slot_open(&slots[i]);
    for (int i = 0; i < STEPS; i++) {
        struct slot *slot = &slots[random_below(SLOTS)];

        step(slot);
        if (slot->receive != NULL && slot->receive->ended)
            take_received(slot);
        if (slot->send != NULL && slot->send->ended)
            slot->send = NULL;
    }
}

const struct test_case storm_cases[] = {
    CASE(every_operation_ends_exactly_once_in_a_storm),
    END_OF_CASES,
};
