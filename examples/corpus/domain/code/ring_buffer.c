/* A ring buffer of bytes for one writer and one reader. */
#include <assert.h>
#include <stddef.h>
#include <string.h>

/* The capacity is a power of two, so that a position is reduced with a mask and not with a division.
 * The counters only grow; unsigned arithmetic makes their difference right even after they wrap. */
#define RING_CAPACITY 16u
#define RING_MASK (RING_CAPACITY - 1u)

struct ring {
    unsigned char bytes[RING_CAPACITY];
    unsigned int written;
    unsigned int read;
};

static size_t ring_used(const struct ring *ring)
{
    return ring->written - ring->read;
}

/* Append up to `length` bytes; return how many there was room for. */
static size_t ring_write(struct ring *ring, const void *source, size_t length)
{
    const unsigned char *next = source;
    size_t room = RING_CAPACITY - ring_used(ring);
    size_t count = length < room ? length : room;
    for (size_t i = 0; i < count; i++) {
        ring->bytes[ring->written++ & RING_MASK] = next[i];
    }
    return count;
}

/* Take out up to `length` bytes; return how many there were. */
static size_t ring_read(struct ring *ring, void *target, size_t length)
{
    unsigned char *next = target;
    size_t used = ring_used(ring);
    size_t count = length < used ? length : used;
    for (size_t i = 0; i < count; i++) {
        next[i] = ring->bytes[ring->read++ & RING_MASK];
    }
    return count;
}

int main(void)
{
    struct ring ring = {0};
    char out[RING_CAPACITY + 1] = {0};

    assert(ring_write(&ring, "hello, ", 7) == 7);
    assert(ring_read(&ring, out, 5) == 5);
    assert(strcmp(out, "hello") == 0);
    assert(ring_write(&ring, "abcdefghijklmnop", 16) == 14);
    assert(ring_used(&ring) == RING_CAPACITY);
    assert(ring_read(&ring, out, sizeof out) == RING_CAPACITY);
    assert(memcmp(out, ", abcdefghijklmn", RING_CAPACITY) == 0);
    return 0;
}
