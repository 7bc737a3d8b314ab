// packages/vectors, through the whole library: a scripted server answers with their bytes.
#include "check.hpp"

#include <cmath>
#include <cstring>
#include <vigie.hpp>

static bool is(const vigie::value &got, const json &wanted);

static bool are(const vigie::value &got, const std::vector<json> &wanted) {
  if (got.size() != wanted.size()) return false;
  std::size_t at = 0;
  for (vigie::value child : got) {
    if (!is(child, wanted[at++])) return false;
  }
  return true;
}

static bool is_double(const vigie::value &got, const json &wanted) {
  double number = got.as<double>();
  if (wanted["value"].string == "nan") return std::isnan(number);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &number, sizeof bits);
  return bits == std::stoull(wanted["bits"].string, nullptr, 16);
}

static bool is_map(const vigie::value &got, const json &wanted) {
  const std::vector<json> &entries = wanted["entries"].items;
  std::size_t at = 0;
  for (auto [key, mapped] : got.entries()) {
    if (at >= entries.size() || !is(key, entries[at].items[0]) || !is(mapped, entries[at].items[1])) return false;
    at++;
  }
  return got.type() == vigie::type::map && at == entries.size();
}

static bool is_error(const vigie::value &got, const json &wanted) {
  auto error = got.error();
  return error && error->status() == VIGIE_ERR_SERVER && error->code() == wanted["code"].string && hex_of(error->message()) == wanted["hex"].string;
}

static bool is(const vigie::value &got, const json &wanted) {
  const std::string &type = wanted["type"].string;
  auto is_text = [&](vigie::type of) { return got.type() == of && hex_of(got.as<std::string_view>()) == wanted["hex"].string; };
  if (type == "null") return got.is_null() && got.as<std::optional<std::string>>() == std::nullopt;
  if (type == "string") return is_text(vigie::type::string);
  if (type == "status") return is_text(vigie::type::status);
  if (type == "verbatim") return is_text(vigie::type::verbatim);
  if (type == "int") return got.type() == vigie::type::integer && std::to_string(got.as<std::int64_t>()) == wanted["value"].string;
  if (type == "double") return got.type() == vigie::type::real && is_double(got, wanted);
  if (type == "bool") return got.type() == vigie::type::boolean && got.as<bool>() == wanted["value"].truth;
  if (type == "bignum") return got.type() == vigie::type::bignum && got.as<std::string>() == wanted["value"].string;
  if (type == "array") return got.type() == vigie::type::array && are(got, wanted["items"].items);
  if (type == "set") return got.type() == vigie::type::set && are(got, wanted["items"].items);
  if (type == "push") return got.type() == vigie::type::push && are(got, wanted["items"].items);
  if (type == "map") return is_map(got, wanted);
  if (type == "error") return is_error(got, wanted);
  CHECK_EQ(type, "nested");
  vigie::value at = got;
  for (long long depth = wanted["depth"].integer(); depth > 0; depth--) {
    if (at.type() != vigie::type::array || at.size() != 1) return false;
    at = at[0];
  }
  return is(at, wanted["value"]);
}

static void decoder(const json &vectors, int protocol) {
  kit server(protocol == 2 ? std::vector<std::string>{"scripted", "--resp2"} : std::vector<std::string>{"scripted"});
  vigie::client client = vigie::sentinel(server.uri()).primary("any");
  std::size_t count = 0;
  for (const json &one : vectors["replies"].items) {
    if (one["protocol"].integer() != protocol) continue;
    vigie::reply got = client.call("GET", "reply:" + one["name"].string);
    if (!is(got, one["value"])) std::cerr << one["name"].string << ": " << got.try_json()->text() << std::endl;
    CHECK(is(got, one["value"]));
    count++;
  }
  for (const json &one : vectors["errors"].items) {
    if (one["protocol"].integer() != protocol) continue;
    try {
      client.call("GET", "reply:" + one["name"].string);
      CHECK(!"an error reply throws");
    } catch (const vigie::server_error &error) {
      CHECK_EQ(error.code(), one["code"].string);
      CHECK_EQ(error.message(), one["message"].string);
    }
    count++;
  }
  for (const json &one : vectors["refused"].items) {
    if (one["protocol"].integer() != protocol) continue;
    auto got = client.try_call("GET", "reply:" + one["name"].string);
    CHECK(!got);
    CHECK_EQ(std::string(got.error().name()), one["status"].string);
    CHECK_THROWS(vigie::connection_error, got.error().raise());
    count++;
  }
  CHECK(count > 30);
}

static void messages(const json &vectors) {
  kit server({"scripted"});
  vigie::client client = vigie::sentinel(server.uri()).primary("any");
  vigie::subscriber sub(client);
  sub.subscribe("news");
  for (const json &one : vectors["pushes"].items) {
    auto heard = sub.next();
    CHECK(heard && is(heard->event().reply(), one["value"]));
    CHECK(heard->channel() == "news");
  }
}

static void add(vigie::command &to, const json &argument) {
  if (argument.has("text")) {
    to.add(argument["text"].string);
  } else if (argument.has("bytes")) {
    std::string bytes = bytes_of(argument["bytes"].string);
    to.add(std::vector<unsigned char>(bytes.begin(), bytes.end()));
  } else {
    const std::string &digits = argument["integer"].string;
    if (digits[0] == '-') {
      to.add(std::stoll(digits));
    } else {
      to.add(std::stoull(digits));
    }
  }
}

// What the server has got, behind the head and the first argument: these are the arguments of the case.
static std::string arrived(const vigie::client &client, const vigie::command &command) {
  std::string bytes = bytes_of(client.call(command).as<std::string>());
  std::string echo = "$11\r\nVECTOR.ECHO\r\n";
  return bytes.substr(bytes.find(echo) + echo.size());
}

static void encoder(const json &vectors) {
  kit server({"scripted"});
  vigie::client client = vigie::sentinel(server.uri()).primary("any");
  std::size_t count = 0;
  for (const json &one : vectors["commands"].items) {
    std::string wanted = bytes_of(one["resp"].string);
    vigie::command echoed("VECTOR.ECHO"), plain;
    for (const json &argument : one["args"].items) add(echoed, argument), add(plain, argument);
    CHECK_EQ(hex_of(arrived(client, echoed)), hex_of(wanted.substr(wanted.find('\n') + 1)));
    vigie::batch list;
    list.add(plain);
    CHECK_EQ(hex_of(list.data()), one["resp"].string);
    count++;
  }
  for (const json &one : vectors["floats"].items) {
    std::uint64_t bits = std::stoull(one["bits"].string, nullptr, 16), read = 0;
    double number = 0;
    std::memcpy(&number, &bits, sizeof number);
    std::string sent = arrived(client, vigie::command("VECTOR.ECHO", number));
    std::string text = sent.substr(sent.find('\n') + 1, sent.size() - sent.find('\n') - 3);
    double back = std::strtod(text.c_str(), nullptr);
    std::memcpy(&read, &back, sizeof read);
    CHECK_EQ(read, bits);
    auto digits = [](const std::string &of) {
      std::size_t found = 0;
      for (char c : of.substr(0, of.find('e'))) found += c >= '0' && c <= '9';
      return found;
    };
    // The same number may be written out or with an exponent; neither has digits that mean nothing.
    CHECK(digits(text) <= std::max<std::size_t>(digits(one["as"].string), 17));
    count++;
  }
  CHECK(count > 30);
  CHECK_THROWS(vigie::usage_error, client.call("VECTOR.ECHO", std::nan("")));
}

// What does not compile as an argument: null, bool, a list, a map, a date, an object.
template <class T> constexpr bool is_taken = vigie::detail::is_text<T> || vigie::detail::is_integer<T> || std::is_floating_point_v<T> || vigie::detail::is_bytes<T>;
static_assert(!is_taken<std::nullptr_t> && !is_taken<std::nullopt_t> && !is_taken<bool> && !is_taken<char> && !is_taken<void *>);
static_assert(!is_taken<std::vector<int>> && !is_taken<std::vector<bool>> && !is_taken<std::map<int, int>> && !is_taken<std::optional<int>>);
static_assert(!is_taken<std::chrono::system_clock::time_point> && !is_taken<json> && !is_taken<vigie::value>);
static_assert(is_taken<std::string> && is_taken<const char *> && is_taken<char[4]> && is_taken<long> && is_taken<float> && is_taken<std::vector<std::byte>>);

// Throws an error of this status, and says by which class it can be caught: the lowest one that errors.json names.
static std::string class_of(const vigie::error &error) {
  try {
    error.raise();
  } catch (const vigie::closed_error &) {
    return "Closed";
  } catch (const vigie::forked_error &) {
    return "Forked";
  } catch (const vigie::cancelled_error &) {
    return "Cancelled";
  } catch (const vigie::usage_error &) {
    return "Usage";
  } catch (const vigie::timeout_error &) {
    return "Timeout";
  } catch (const vigie::connection_error &) {
    return "Connection";
  } catch (const vigie::unavailable_error &) {
    return "Unavailable";
  } catch (const vigie::pool_error &) {
    return "Pool";
  } catch (const vigie::txn_aborted_error &) {
    return "TxnAborted";
  } catch (const vigie::cross_shard_error &) {
    return "CrossShard";
  } catch (const vigie::replicas_error &) {
    return "Replicas";
  } catch (const vigie::scan_interrupted_error &) {
    return "ScanInterrupted";
  } catch (const vigie::server_error &) {
    return "Server";
  }
}

template <class Class> static bool is_raised_as(const vigie::error &error) {
  try {
    error.raise();
  } catch (const Class &caught) {
    return caught.code() == error.code();
  } catch (...) {
    return false;
  }
}

static void errors(const json &vectors) {
  const vigie_status *known = nullptr;
  std::size_t count = vigie_status_list(&known);
  CHECK_EQ(count, vectors["statuses"].items.size() + 1);
  for (std::size_t at = 1; at < count; at++) {
    const json &row = vectors["statuses"].items[at - 1];
    CHECK_EQ(known[at], row["status"].integer());
    CHECK_EQ(class_of(vigie::error(known[at], "a sentence")), row["class"].string);
  }
  for (const json &row : vectors["ranges"].items) {
    // Of each range a status that nobody knows yet.
    CHECK_EQ(class_of(vigie::error(static_cast<vigie_status>(row["to"].integer()), "a sentence")), row["class"].string);
  }
  std::map<std::string, bool (*)(const vigie::error &)> classes;
#define CLASS_OF_CODE(code, name) classes[code] = is_raised_as<vigie::name>;
  VIGIE_HPP_SERVER_CODES(CLASS_OF_CODE)
  CHECK_EQ(classes.size(), vectors["server_codes"].items.size());
  for (const json &row : vectors["server_codes"].items) {
    CHECK(classes.count(row["code"].string) == 1);
    CHECK(classes[row["code"].string](vigie::error(VIGIE_ERR_SERVER, row["line"].string, row["code"].string)));
  }
}

int main() {
  std::string dir = environment("VIGIE_ROOT") + "/packages/vectors/";
  json decode = json_file(dir + "decode.json");
  decoder(decode, 3);
  decoder(decode, 2);
  messages(decode);
  encoder(json_file(dir + "encode.json"));
  errors(json_file(dir + "errors.json"));
  std::puts("ok");
}
