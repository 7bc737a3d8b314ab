// A reader of JSON, as much as the vectors and the test kit need.
#ifndef VIGIE_TEST_JSON_HPP
#define VIGIE_TEST_JSON_HPP

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct json {
  enum kind_of { nothing, boolean, number, text, list, object } kind = nothing;
  bool truth = false;
  std::string string; // of a text, and the digits of a number
  std::vector<json> items;
  std::map<std::string, json> fields;

  const json &operator[](const std::string &key) const {
    auto found = fields.find(key);
    if (found == fields.end()) throw std::runtime_error("no field " + key);
    return found->second;
  }
  bool has(const std::string &key) const { return fields.count(key) != 0; }
  long long integer() const { return std::atoll(string.c_str()); }

  static json parse(const std::string &from) {
    reader in{from, 0};
    return in.value();
  }

private:
  struct reader {
    const std::string &from;
    std::size_t at;

    char peek() {
      while (at < from.size() && std::string(" \n\r\t,:").find(from[at]) != std::string::npos) at++;
      if (at >= from.size()) throw std::runtime_error("JSON ends early");
      return from[at];
    }
    json value() {
      json made;
      switch (peek()) {
      case '{': return object_value();
      case '[':
        made.kind = list;
        at++;
        while (peek() != ']') made.items.push_back(value());
        at++;
        return made;
      case '"':
        made.kind = text;
        made.string = text_value();
        return made;
      default: return word();
      }
    }
    json object_value() {
      json made;
      made.kind = object;
      at++;
      while (peek() != '}') {
        std::string key = text_value();
        made.fields[key] = value();
      }
      at++;
      return made;
    }
    json word() {
      json made;
      std::size_t begin = at;
      while (at < from.size() && std::string(",]} \n").find(from[at]) == std::string::npos) at++;
      std::string said = from.substr(begin, at - begin);
      if (said == "null") return made;
      made.kind = said == "true" || said == "false" ? boolean : number;
      made.truth = said == "true";
      made.string = said;
      return made;
    }
    std::string text_value() {
      std::string made;
      for (at++; from.at(at) != '"'; at++) {
        if (from[at] != '\\') {
          made += from[at];
          continue;
        }
        switch (from.at(++at)) {
        case 'n': made += '\n'; break;
        case 'r': made += '\r'; break;
        case 't': made += '\t'; break;
        case 'b': made += '\b'; break;
        case 'f': made += '\f'; break;
        case 'u':
          put_utf8(made, static_cast<unsigned>(std::stoul(from.substr(at + 1, 4), nullptr, 16)));
          at += 4;
          break;
        default: made += from[at];
        }
      }
      at++;
      return made;
    }
    static void put_utf8(std::string &to, unsigned code) {
      if (code < 0x80) {
        to += static_cast<char>(code);
      } else if (code < 0x800) {
        to += static_cast<char>(0xC0 | code >> 6);
        to += static_cast<char>(0x80 | (code & 63));
      } else {
        to += static_cast<char>(0xE0 | code >> 12);
        to += static_cast<char>(0x80 | (code >> 6 & 63));
        to += static_cast<char>(0x80 | (code & 63));
      }
    }
  };
};

#endif
