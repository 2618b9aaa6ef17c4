// Command gobpeer is the Go end of the gob tests. Each line of its input is an order, each line of its output the answer:
//
//	decode HEX      a stream, read as a node does; the answer is JSON
//	encode JSON     the JSON of a message; the answer is the stream in hex
//	extended JSON   the same, of a type that has more fields, in another order
//
// Texts are base64 in the JSON, since they may hold any bytes. An answer that begins with "error" is one.
package main

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
)

type Node string
type Method string

type Message struct {
	ToNode               Node
	ToNodes              []Node
	ID                   int
	Data                 []string
	Method               Method
	MethodArgs           []string
	ReplyMethod          Method
	ReplyMethodArgs      []string
	IsReply              bool
	FromNode             Node
	ACKTimeout           int
	Retries              int
	ReplyACKTimeout      int
	ReplyRetries         int
	MethodTimeout        int
	ReplyMethodTimeout   int
	Directory            string
	FileName             string
	PreviousMessage      *Message
	RelayViaNode         Node
	RelayOriginalViaNode Node
	RelayFromNode        Node
	RelayToNode          Node
	RelayOriginalMethod  Method
	RelayReplyMethod     Method
	done                 chan struct{}
}

type Tree struct {
	Name     string
	Children []*Tree
}

// Extended has fields that nobody knows, of every kind, among those that everybody knows.
type Extended struct {
	Labels          map[string][]int
	PreviousMessage *Message
	Data            []string
	Weight          float64
	Method          Method
	Turn            complex128
	MethodArgs      []string
	Anything        interface{}
	Nothing         interface{}
	When            time.Time
	ToNodes         []Node
	Square          [2][3]uint16
	Signature       []byte
	Root            Tree
	Small           float32
	FromNode        Node
	ID              int
	Flag            bool
	IsReply         bool
	Rows            [][]string
	ToNode          Node
}

// toJSON turns strings into bytes, which become base64.
func toJSON(value reflect.Value) interface{} {
	switch value.Kind() {
	case reflect.String:
		return []byte(value.String())
	case reflect.Slice:
		if value.IsNil() {
			return nil
		}
		list := make([]interface{}, value.Len())
		for i := range list {
			list[i] = toJSON(value.Index(i))
		}
		return list
	case reflect.Ptr:
		if value.IsNil() {
			return nil
		}
		return toJSON(value.Elem())
	case reflect.Struct:
		fields := map[string]interface{}{}
		for i := 0; i < value.NumField(); i++ {
			if value.Type().Field(i).IsExported() {
				fields[value.Type().Field(i).Name] = toJSON(value.Field(i))
			}
		}
		return fields
	}
	return value.Interface()
}

// fromJSON fills a value from what toJSON made; fields that it lacks are left out.
func fromJSON(raw json.RawMessage, value reflect.Value) error {
	if string(raw) == "null" {
		return nil
	}
	switch value.Kind() {
	case reflect.String:
		var text []byte
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		value.SetString(string(text))
		return nil
	case reflect.Slice:
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		value.Set(reflect.MakeSlice(value.Type(), len(list), len(list)))
		for i, item := range list {
			if err := fromJSON(item, value.Index(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Ptr:
		value.Set(reflect.New(value.Type().Elem()))
		return fromJSON(raw, value.Elem())
	case reflect.Struct:
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return err
		}
		for name, item := range fields {
			if field := value.FieldByName(name); field.IsValid() {
				if err := fromJSON(item, field); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return json.Unmarshal(raw, value.Addr().Interface())
}

func encode(message interface{}) (string, error) {
	var stream bytes.Buffer
	err := gob.NewEncoder(&stream).Encode(message)
	return hex.EncodeToString(stream.Bytes()), err
}

func answer(order, text string) (string, error) {
	switch order {
	case "decode":
		raw, err := hex.DecodeString(text)
		if err != nil {
			return "", err
		}
		message := Message{}
		if err := gob.NewDecoder(bytes.NewReader(raw)).Decode(&message); err != nil {
			return "", err
		}
		shown, err := json.Marshal(toJSON(reflect.ValueOf(message)))
		return string(shown), err
	case "encode":
		message := Message{}
		if err := fromJSON(json.RawMessage(text), reflect.ValueOf(&message).Elem()); err != nil {
			return "", err
		}
		return encode(message)
	case "extended":
		message := Extended{
			Labels:    map[string][]int{"a": {1, -2}, "": nil},
			Weight:    -1.5e300,
			Turn:      complex(1, -2),
			Anything:  Tree{Name: "concrete", Children: []*Tree{{Name: "leaf"}}},
			When:      time.Unix(1641038400, 5),
			Square:    [2][3]uint16{{1, 2, 65535}, {}},
			Signature: bytes.Repeat([]byte{0, 255}, 100),
			Root:      Tree{Children: []*Tree{{Name: "x"}, {Children: []*Tree{{}}}}},
			Small:     0.25,
			Flag:      true,
			Rows:      [][]string{{"a", ""}, nil},
		}
		if err := fromJSON(json.RawMessage(text), reflect.ValueOf(&message).Elem()); err != nil {
			return "", err
		}
		return encode(message)
	}
	return "", fmt.Errorf("no such order %q", order)
}

func main() {
	gob.Register(Tree{})
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	output := bufio.NewWriter(os.Stdout)
	defer output.Flush()
	for {
		line, err := input.ReadString('\n')
		if err != nil {
			return
		}
		order, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		result, err := answer(order, text)
		if err != nil {
			result = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Fprintln(output, result)
	}
}
