// 100,000 submits in one goroutine that waits for the queue's descriptor in Go's netpoller, with the next tick as its deadline.
// Argument: URI.
package main

/*
#cgo pkg-config: vigie
#include <stdlib.h>
#include <vigie.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	commands = 100000
	batch    = 256
	capacity = 1000
	period   = 5 * time.Millisecond
	bound    = 2250 * time.Millisecond
	patience = time.Minute
	key      = "loop:go"
)

func fail(what string, err *C.vigie_error) {
	log.Fatalf("%s: %s", what, C.GoString(C.vigie_error_message(err)))
}

func open(uri string) *C.vigie_client {
	config := C.vigie_config_new()
	defer C.vigie_config_free(config)
	name, value := C.CString("uri"), C.CString(uri)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(value))
	var sentinel *C.vigie_sentinel
	var client *C.vigie_client
	var err *C.vigie_error
	if C.vigie_config_set(config, name, value, &err) != C.VIGIE_OK ||
		C.vigie_sentinel_create(config, 2000, &sentinel, &err) != C.VIGIE_OK ||
		C.vigie_primary_for(sentinel, nil, nil, &client, &err) != C.VIGIE_OK {
		fail("open", err)
	}
	C.vigie_sentinel_free(sentinel)
	return client
}

// encode adds one command to the list; one buffer of Go memory without Go pointers in it may cross the border.
func encode(to []byte, words ...string) []byte {
	to = append(strconv.AppendInt(append(to, '*'), int64(len(words)), 10), "\r\n"...)
	for _, word := range words {
		to = append(strconv.AppendInt(append(to, '$'), int64(len(word)), 10), "\r\n"...)
		to = append(append(to, word...), "\r\n"...)
	}
	return to
}

// list runs one command whose reply is a list of texts.
func list(client *C.vigie_client, words ...string) []string {
	resp := encode(nil, words...)
	var reply *C.vigie_reply
	var err *C.vigie_error
	if C.vigie_cmds_exec(client, unsafe.Pointer(&resp[0]), C.size_t(len(resp)), 0, C.VIGIE_TIMEOUT_DEFAULT, &reply, &err) != C.VIGIE_OK {
		fail(words[0], err)
	}
	defer C.vigie_reply_free(reply)
	var count, length C.size_t
	var data *C.char
	nodes := unsafe.Slice(C.vigie_reply_nodes(reply, &count, &data, &length), count)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(data)), length)
	root := nodes[nodes[0].value]
	var texts []string
	for _, node := range nodes[root.value:][:root.count] {
		texts = append(texts, string(bytes[node.value:][:node.len]))
	}
	return texts
}

// loop keeps the queue full, checks what comes back, and looks at the clock every 5 ms.
type loop struct {
	client                       *C.vigie_client
	queue                        *C.vigie_queue
	events                       *[batch]C.vigie_event // C memory: the library writes its pointers there
	resp                         []byte
	told                         [commands]bool
	submitted, seen, full, ticks int
	begun, lastTick              time.Time
	pause                        time.Duration
}

func (l *loop) submit() {
	for l.submitted < commands {
		last := l.submitted + batch
		if last > commands {
			last = commands
		}
		l.resp = l.resp[:0]
		for i := l.submitted; i < last; i++ {
			l.resp = encode(l.resp, "RPUSH", key, strconv.Itoa(i))
		}
		var err *C.vigie_error
		status := C.vigie_cmds_submit(l.client, unsafe.Pointer(&l.resp[0]), C.size_t(len(l.resp)), C.VIGIE_CALL_EACH,
			C.VIGIE_TIMEOUT_DEFAULT, l.queue, C.uint64_t(l.submitted), &err)
		if status == C.VIGIE_ERR_QUEUE_FULL {
			C.vigie_error_free(err)
			l.full++
			return
		}
		if status != C.VIGIE_OK {
			fail("submit", err)
		}
		l.submitted = last
	}
}

// The header promises the order in which calls start, which their values show, and not that of completions.
func (l *loop) readable() {
	for {
		count := int(C.vigie_queue_drain(l.queue, 0, &l.events[0], batch))
		if count < 0 {
			log.Fatalf("drain gave %d", count)
		}
		for i := 0; i < count; i++ {
			event := &l.events[i]
			if event.kind != C.VIGIE_EVENT_COMPLETION || event.status != C.VIGIE_OK || event.nodes._type != C.VIGIE_TYPE_INT ||
				int(event.nodes.value) != int(event.token)+1 || l.told[event.token] {
				log.Fatalf("completion %d is %+v: %s", l.seen, *event, C.GoString(C.vigie_error_message(event.error)))
			}
			l.told[event.token] = true
			l.seen++
		}
		C.vigie_events_clear(&l.events[0], C.size_t(count))
		if count < batch {
			break
		}
	}
	l.submit()
}

func (l *loop) look() {
	now := time.Now()
	if pause := now.Sub(l.lastTick); pause > l.pause {
		l.pause = pause
	}
	l.lastTick = now
}

func (l *loop) tick() {
	l.ticks++
	l.look()
	if l.lastTick.Sub(l.begun) > patience {
		log.Fatalf("%d of %d after %v", l.seen, commands, patience)
	}
}

func (l *loop) run() {
	// The File closes what it has, so it gets a copy; both are non-blocking, which is what makes it wait in the netpoller.
	fd, err := syscall.Dup(int(C.vigie_queue_fd(l.queue)))
	if err != nil {
		log.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "queue")
	defer file.Close()
	conn, err := file.SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	l.begun = time.Now()
	l.lastTick = l.begun
	l.submit()
	for l.seen < commands {
		// Only what the netpoller knows takes a deadline.
		if err := file.SetReadDeadline(l.lastTick.Add(period)); err != nil {
			log.Fatal(err)
		}
		// Called at once, and again when the descriptor is readable; the drain takes the byte.
		err := conn.Read(func(uintptr) bool {
			before := l.seen
			l.readable()
			return l.seen > before
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			log.Fatal(err)
		}
		if time.Since(l.lastTick) >= period {
			l.tick()
		}
	}
	l.look()
}

func main() {
	runtime.GOMAXPROCS(1)
	client := open(os.Args[1])
	var err *C.vigie_error
	l := &loop{client: client, events: (*[batch]C.vigie_event)(C.calloc(batch, C.sizeof_vigie_event))}
	if C.vigie_queue_create(capacity, &l.queue, &err) != C.VIGIE_OK {
		fail("queue", err)
	}
	l.run()
	elapsed := l.lastTick.Sub(l.begun)
	if C.vigie_queue_drain(l.queue, 50, &l.events[0], 1) != 0 {
		log.Fatal("a completion too many")
	}
	texts := list(client, "LRANGE", key, "0", "-1")
	if len(texts) != commands {
		log.Fatalf("the server has %d", len(texts))
	}
	for i, text := range texts {
		if text != strconv.Itoa(i) {
			log.Fatalf("the server has %s as number %d", text, i)
		}
	}
	if l.pause > bound || l.full == 0 {
		log.Fatalf("the loop stood still for %v, the queue was full %d times", l.pause, l.full)
	}
	C.vigie_queue_free(l.queue)
	C.vigie_client_free(client)
	C.free(unsafe.Pointer(l.events))
	fmt.Printf("Go's netpoller: %d commands in %.2f s, queue full %d times, %d ticks, longest pause %.1f ms, ok\n",
		commands, elapsed.Seconds(), l.full, l.ticks, float64(l.pause.Microseconds())/1000)
}
