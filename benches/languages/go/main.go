// GET of 64 bytes through cgo beside go-redis, one goroutine. Arguments: URI, host, port. Prints rows for scripts/bench-languages.
package main

/*
#cgo pkg-config: vigie
#include <stdlib.h>
#include <vigie.h>

// What a call reads and writes, in C memory: an array of Go pointers may not cross the border.
typedef struct {
  const char *argv[8];
  size_t lengths[8];
  size_t node_count;
  const char *data;
  vigie_reply *reply;
  vigie_error *error;
  char words[4096];
} arguments;
*/
import "C"

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
)

const (
	rounds  = 9
	calls   = 5000
	batches = 100
	window  = 256
	key     = "bench:go"
)

var value = bytes.Repeat([]byte("x"), 64)

type client struct {
	handle *C.vigie_client
	queue  *C.vigie_queue
	events *[window]C.vigie_event
	a      *C.arguments
	resp   []byte
}

func fail(what string, err *C.vigie_error) {
	log.Fatalf("%s: %s", what, C.GoString(C.vigie_error_message(err)))
}

func open(uri string) *client {
	c := &client{
		a:      (*C.arguments)(C.calloc(1, C.sizeof_arguments)),
		events: (*[window]C.vigie_event)(C.calloc(window, C.sizeof_vigie_event)),
	}
	config := C.vigie_config_new()
	defer C.vigie_config_free(config)
	name, text := C.CString("uri"), C.CString(uri)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(text))
	var sentinel *C.vigie_sentinel
	if C.vigie_config_set(config, name, text, &c.a.error) != C.VIGIE_OK ||
		C.vigie_sentinel_create(config, 2000, &sentinel, &c.a.error) != C.VIGIE_OK ||
		C.vigie_primary_for(sentinel, nil, nil, &c.handle, &c.a.error) != C.VIGIE_OK ||
		C.vigie_queue_create(window, &c.queue, &c.a.error) != C.VIGIE_OK {
		fail("open", c.a.error)
	}
	C.vigie_sentinel_free(sentinel)
	return c
}

// text takes a text out of the flat form of a reply.
func text(node *C.vigie_node, data *C.char) []byte {
	return C.GoBytes(unsafe.Add(unsafe.Pointer(data), node.value), C.int(node.len))
}

// exec runs one command of up to eight words, 4096 bytes in all, whose reply is a text.
func (c *client) exec(words ...string) []byte {
	a, end := c.a, 0
	memory := unsafe.Slice((*byte)(unsafe.Pointer(&a.words)), len(a.words))
	for i, word := range words {
		a.argv[i], a.lengths[i] = &a.words[end], C.size_t(len(word))
		end += copy(memory[end:], word)
	}
	if C.vigie_cmd_exec(c.handle, C.size_t(len(words)), &a.argv[0], &a.lengths[0], 0, C.VIGIE_TIMEOUT_DEFAULT, &a.reply, &a.error) != C.VIGIE_OK {
		fail(words[0], a.error)
	}
	taken := text(C.vigie_reply_nodes(a.reply, &a.node_count, &a.data, nil), a.data)
	C.vigie_reply_free(a.reply)
	return taken
}

func encode(to []byte, words ...string) []byte {
	to = append(strconv.AppendInt(append(to, '*'), int64(len(words)), 10), "\r\n"...)
	for _, word := range words {
		to = append(strconv.AppendInt(append(to, '$'), int64(len(word)), 10), "\r\n"...)
		to = append(append(to, word...), "\r\n"...)
	}
	return to
}

func (c *client) encode(count int) {
	c.resp = c.resp[:0]
	for i := 0; i < count; i++ {
		c.resp = encode(c.resp, "GET", key)
	}
}

func (c *client) submit(first, count int) {
	c.encode(count)
	if C.vigie_cmds_submit(c.handle, unsafe.Pointer(&c.resp[0]), C.size_t(len(c.resp)), C.VIGIE_CALL_EACH, C.VIGIE_TIMEOUT_DEFAULT,
		c.queue, C.uint64_t(first), &c.a.error) != C.VIGIE_OK {
		fail("submit", c.a.error)
	}
}

func expect(got []byte) {
	if !bytes.Equal(got, value) {
		log.Fatalf("a wrong answer: %q", got)
	}
}

func (c *client) calls(count int) {
	for i := 0; i < count; i++ {
		expect(c.exec("GET", key))
	}
}

// window has at most that many outstanding, in batches of half of it; the drain waits and reads the socket itself.
func (c *client) window(count int) {
	submitted, seen := 0, 0
	for seen < count {
		for submitted < count && submitted-seen <= window/2 {
			c.submit(submitted, window/2)
			submitted += window / 2
		}
		taken := C.vigie_queue_drain(c.queue, 5000, &c.events[0], window)
		for i := range c.events[:taken] {
			event := &c.events[i]
			if event.status != C.VIGIE_OK {
				fail("completion", event.error)
			}
			expect(text(event.nodes, event.data))
		}
		C.vigie_events_clear(&c.events[0], C.size_t(taken))
		seen += int(taken)
	}
}

// list runs that many commands as one list, whose replies come as one.
func (c *client) list(count int) {
	a := c.a
	for done := 0; done < count; done += window {
		c.encode(window)
		if C.vigie_cmds_exec(c.handle, unsafe.Pointer(&c.resp[0]), C.size_t(len(c.resp)), 0, C.VIGIE_TIMEOUT_DEFAULT, &a.reply, &a.error) != C.VIGIE_OK {
			fail("list", a.error)
		}
		nodes := unsafe.Slice(C.vigie_reply_nodes(a.reply, &a.node_count, &a.data, nil), window+1)
		for i := range nodes[1:] {
			expect(text(&nodes[1+i], a.data))
		}
		C.vigie_reply_free(a.reply)
	}
}

type own struct{ *redis.Client }

func (o own) calls(count int) {
	for i := 0; i < count; i++ {
		got, err := o.Get(context.Background(), key).Bytes()
		if err != nil {
			log.Fatal(err)
		}
		expect(got)
	}
}

func (o own) pipeline(count int) {
	for done := 0; done < count; done += window {
		pipe := o.Pipeline()
		for i := 0; i < window; i++ {
			pipe.Get(context.Background(), key)
		}
		replies, err := pipe.Exec(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		for _, reply := range replies {
			got, _ := reply.(*redis.StringCmd).Bytes()
			expect(got)
		}
	}
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// compare runs rounds in turn, so that what disturbs one disturbs the other.
func compare(how string, count int, runs ...func(int)) {
	wall, spent := make([][]float64, len(runs)), make([][]float64, len(runs))
	for _, run := range runs {
		run(2 * window)
	}
	for turn := 0; turn < rounds; turn++ {
		for n := range runs {
			i := n
			if turn%2 == 0 {
				i = len(runs) - 1 - n
			}
			begun, used := time.Now(), cpu()
			runs[i](count)
			wall[i] = append(wall[i], float64(time.Since(begun).Nanoseconds())/1e3/float64(count))
			spent[i] = append(spent[i], float64((cpu()-used).Nanoseconds())/1e3/float64(count))
		}
	}
	row := []string{"Go, cgo", how, "go-redis " + redis.Version()}
	for i := range runs {
		sort.Float64s(wall[i])
		sort.Float64s(spent[i])
		row = append(row, fmt.Sprintf("%.2f", wall[i][rounds/2]), fmt.Sprintf("%.2f", spent[i][rounds/2]))
	}
	fmt.Println(strings.Join(row, "\t"))
}

func main() {
	c := open(os.Args[1])
	c.exec("SET", key, string(value))
	o := own{redis.NewClient(&redis.Options{Addr: os.Args[2] + ":" + os.Args[3]})}
	compare("call", calls, c.calls, o.calls)
	compare("window", batches*window, c.window, o.pipeline)
	compare("list", batches*window, c.list, o.pipeline)
}
