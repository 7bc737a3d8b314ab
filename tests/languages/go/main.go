// Go through cgo: a deployment, a command, a nested reply, an error object. Argument: URI.
package main

/*
#cgo pkg-config: vigie
#include <stdlib.h>
#include <vigie.h>
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"reflect"
	"unsafe"
)

// Error is what is taken out of an error object before it is freed.
type Error struct {
	Status  int
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Message }

func taken(err *C.vigie_error) error {
	defer C.vigie_error_free(err)
	return &Error{
		Status:  int(C.vigie_error_status(err)),
		Code:    C.GoString(C.vigie_error_server_code(err)),
		Message: C.GoString(C.vigie_error_message(err)),
	}
}

func decode(reply *C.vigie_reply, node C.uint32_t) any {
	switch C.vigie_reply_type(reply, node) {
	case C.VIGIE_TYPE_ARRAY, C.VIGIE_TYPE_MAP, C.VIGIE_TYPE_SET, C.VIGIE_TYPE_PUSH:
		list := []any{}
		for i := C.uint32_t(0); i < C.vigie_reply_count(reply, node); i++ {
			list = append(list, decode(reply, C.vigie_reply_child(reply, node, i)))
		}
		return list
	case C.VIGIE_TYPE_INT, C.VIGIE_TYPE_BOOL:
		return int64(C.vigie_reply_int(reply, node, 0))
	case C.VIGIE_TYPE_NULL:
		return nil
	}
	var length C.size_t
	text := C.vigie_reply_bytes(reply, node, &length)
	return string(C.GoBytes(unsafe.Pointer(text), C.int(length)))
}

// cmds sends a list of commands as one buffer: Go memory without Go pointers in it may cross the border.
func cmds(client *C.vigie_client, commands ...[]string) ([]any, error) {
	var resp bytes.Buffer
	for _, words := range commands {
		fmt.Fprintf(&resp, "*%d\r\n", len(words))
		for _, word := range words {
			fmt.Fprintf(&resp, "$%d\r\n%s\r\n", len(word), word)
		}
	}
	buf := resp.Bytes()
	var reply *C.vigie_reply
	var err *C.vigie_error
	if C.vigie_cmds_exec(client, unsafe.Pointer(&buf[0]), C.size_t(len(buf)), 0, C.VIGIE_TIMEOUT_DEFAULT, &reply, &err) != C.VIGIE_OK {
		return nil, taken(err)
	}
	defer C.vigie_reply_free(reply)
	return decode(reply, 0).([]any), nil
}

// cmd sends one command; its words are copied to C memory, because an array of Go pointers may not cross the border.
func cmd(client *C.vigie_client, words ...string) (any, error) {
	argv := unsafe.Slice((**C.char)(C.calloc(C.size_t(len(words)), C.size_t(unsafe.Sizeof(uintptr(0))))), len(words))
	lengths := make([]C.size_t, len(words))
	for i, word := range words {
		argv[i], lengths[i] = C.CString(word), C.size_t(len(word))
		defer C.free(unsafe.Pointer(argv[i]))
	}
	defer C.free(unsafe.Pointer(&argv[0]))
	var reply *C.vigie_reply
	var err *C.vigie_error
	if C.vigie_cmd_exec(client, C.size_t(len(words)), &argv[0], &lengths[0], 0, C.VIGIE_TIMEOUT_DEFAULT, &reply, &err) != C.VIGIE_OK {
		return nil, taken(err)
	}
	defer C.vigie_reply_free(reply)
	return decode(reply, 0), nil
}

func expect(got any, err error, wanted any) {
	if err != nil {
		log.Fatal(err)
	}
	if !reflect.DeepEqual(got, wanted) {
		log.Fatalf("got %#v, wanted %#v", got, wanted)
	}
}

func open(uri string) (*C.vigie_sentinel, *C.vigie_client, error) {
	config := C.vigie_config_new()
	defer C.vigie_config_free(config)
	key, value := C.CString("uri"), C.CString(uri)
	defer C.free(unsafe.Pointer(key))
	defer C.free(unsafe.Pointer(value))
	var sentinel *C.vigie_sentinel
	var client *C.vigie_client
	var err *C.vigie_error
	if C.vigie_config_set(config, key, value, &err) != C.VIGIE_OK ||
		C.vigie_sentinel_create(config, 2000, &sentinel, &err) != C.VIGIE_OK ||
		C.vigie_primary_for(sentinel, nil, nil, &client, &err) != C.VIGIE_OK {
		return nil, nil, taken(err)
	}
	return sentinel, client, nil
}

func main() {
	sentinel, client, err := open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	got, err := cmd(client, "SET", "go:key", string(binary))
	expect(got, err, "OK")
	got, err = cmd(client, "GET", "go:key")
	expect(got, err, string(binary))
	replies, err := cmds(client, []string{"DEL", "go:list"}, []string{"RPUSH", "go:list", "a", "b", ""},
		[]string{"LRANGE", "go:list", "0", "-1"}, []string{"GET", "go:none"})
	expect(replies[1:], err, []any{int64(3), []any{"a", "b", ""}, nil})

	_, err = cmd(client, "INCR", "go:list")
	var failure *Error
	if !errors.As(err, &failure) || failure.Status != C.VIGIE_ERR_SERVER || failure.Code != "WRONGTYPE" {
		log.Fatalf("INCR of a list: %v", err)
	}

	C.vigie_sentinel_free(sentinel) // before its client, on purpose: any order is right
	C.vigie_client_free(client)
	fmt.Println("ok")
}
