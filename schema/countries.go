package schema

import (
	"slices"
	"strings"
)

// A country of ISO 3166-1: its alpha-2 code, its short name in English, its
// continent, and the middle of its land in degrees, to about 50 km. Where a
// country is in several parts it is the middle of the largest.
type country struct {
	code, name, continent string
	lat, lon              float64
}

// countries is sorted by code.
var countries = [...]country{
	{"AD", "Andorra", "EU", 42.5, 1.6},
	{"AE", "United Arab Emirates", "AS", 24, 54},
	{"AF", "Afghanistan", "AS", 33.8, 66},
	{"AG", "Antigua and Barbuda", "NA", 17.1, -61.8},
	{"AI", "Anguilla", "NA", 18.2, -63.1},
	{"AL", "Albania", "EU", 41.1, 20.1},
	{"AM", "Armenia", "AS", 40.3, 44.9},
	{"AO", "Angola", "AF", -12.3, 17.5},
	{"AQ", "Antarctica", "AN", -80, 0},
	{"AR", "Argentina", "SA", -35.4, -65.2},
	{"AS", "American Samoa", "OC", -14.3, -170.7},
	{"AT", "Austria", "EU", 47.6, 14.1},
	{"AU", "Australia", "OC", -25.6, 134.5},
	{"AW", "Aruba", "NA", 12.5, -70},
	{"AX", "Åland Islands", "EU", 60.2, 20},
	{"AZ", "Azerbaijan", "AS", 40.3, 47.5},
	{"BA", "Bosnia and Herzegovina", "EU", 44.2, 17.8},
	{"BB", "Barbados", "NA", 13.2, -59.6},
	{"BD", "Bangladesh", "AS", 23.9, 90.2},
	{"BE", "Belgium", "EU", 50.6, 4.6},
	{"BF", "Burkina Faso", "AF", 12.3, -1.8},
	{"BG", "Bulgaria", "EU", 42.8, 25.2},
	{"BH", "Bahrain", "AS", 26, 50.5},
	{"BI", "Burundi", "AF", -3.4, 29.9},
	{"BJ", "Benin", "AF", 9.6, 2.3},
	{"BL", "Saint Barthélemy", "NA", 17.9, -62.8},
	{"BM", "Bermuda", "NA", 32.3, -64.8},
	{"BN", "Brunei", "AS", 4.5, 114.7},
	{"BO", "Bolivia", "SA", -16.7, -64.7},
	{"BQ", "Bonaire, Sint Eustatius and Saba", "NA", 12.2, -68.3},
	{"BR", "Brazil", "SA", -10.8, -53.1},
	{"BS", "Bahamas", "NA", 24.5, -76.5},
	{"BT", "Bhutan", "AS", 27.4, 90.4},
	{"BV", "Bouvet Island", "AN", -54.4, 3.4},
	{"BW", "Botswana", "AF", -22.2, 23.8},
	{"BY", "Belarus", "EU", 53.5, 28},
	{"BZ", "Belize", "NA", 17.2, -88.7},
	{"CA", "Canada", "NA", 56, -98},
	{"CC", "Cocos Islands", "AS", -12.2, 96.8},
	{"CD", "DR Congo", "AF", -2.9, 23.6},
	{"CF", "Central African Republic", "AF", 6.6, 20.5},
	{"CG", "Congo", "AF", -0.8, 15.2},
	{"CH", "Switzerland", "EU", 46.8, 8.2},
	{"CI", "Côte d'Ivoire", "AF", 7.6, -5.6},
	{"CK", "Cook Islands", "OC", -21.2, -159.8},
	{"CL", "Chile", "SA", -35.7, -71.4},
	{"CM", "Cameroon", "AF", 5.7, 12.7},
	{"CN", "China", "AS", 35.5, 103.8},
	{"CO", "Colombia", "SA", 3.9, -73.1},
	{"CR", "Costa Rica", "NA", 10, -84.2},
	{"CU", "Cuba", "NA", 21.6, -79},
	{"CV", "Cape Verde", "AF", 15.9, -24},
	{"CW", "Curaçao", "NA", 12.2, -69},
	{"CX", "Christmas Island", "AS", -10.5, 105.6},
	{"CY", "Cyprus", "AS", 35, 33.1},
	{"CZ", "Czechia", "EU", 49.7, 15.3},
	{"DE", "Germany", "EU", 51.1, 10.4},
	{"DJ", "Djibouti", "AF", 11.7, 42.6},
	{"DK", "Denmark", "EU", 56, 10},
	{"DM", "Dominica", "NA", 15.4, -61.4},
	{"DO", "Dominican Republic", "NA", 18.9, -70.5},
	{"DZ", "Algeria", "AF", 28.2, 2.6},
	{"EC", "Ecuador", "SA", -1.4, -78.8},
	{"EE", "Estonia", "EU", 58.7, 25.5},
	{"EG", "Egypt", "AF", 26.5, 29.9},
	{"EH", "Western Sahara", "AF", 24.2, -12.9},
	{"ER", "Eritrea", "AF", 15.4, 38.8},
	{"ES", "Spain", "EU", 40.2, -3.6},
	{"ET", "Ethiopia", "AF", 8.6, 39.6},
	{"FI", "Finland", "EU", 64.5, 26.3},
	{"FJ", "Fiji", "OC", -17.8, 178},
	{"FK", "Falkland Islands", "SA", -51.7, -59.4},
	{"FM", "Micronesia", "OC", 6.9, 158.2},
	{"FO", "Faroe Islands", "EU", 62, -6.9},
	{"FR", "France", "EU", 46.6, 2.5},
	{"GA", "Gabon", "AF", -0.6, 11.8},
	{"GB", "United Kingdom", "EU", 54.1, -2.9},
	{"GD", "Grenada", "NA", 12.1, -61.7},
	{"GE", "Georgia", "AS", 42.2, 43.5},
	{"GF", "French Guiana", "SA", 3.9, -53.2},
	{"GG", "Guernsey", "EU", 49.5, -2.6},
	{"GH", "Ghana", "AF", 7.9, -1.2},
	{"GI", "Gibraltar", "EU", 36.1, -5.3},
	{"GL", "Greenland", "NA", 72, -41},
	{"GM", "Gambia", "AF", 13.4, -15.4},
	{"GN", "Guinea", "AF", 10.4, -10.9},
	{"GP", "Guadeloupe", "NA", 16.2, -61.6},
	{"GQ", "Equatorial Guinea", "AF", 1.7, 10.3},
	{"GR", "Greece", "EU", 39.1, 22.9},
	{"GS", "South Georgia and the South Sandwich Islands", "AN", -54.4, -36.7},
	{"GT", "Guatemala", "NA", 15.7, -90.4},
	{"GU", "Guam", "OC", 13.4, 144.8},
	{"GW", "Guinea-Bissau", "AF", 12, -15},
	{"GY", "Guyana", "SA", 4.8, -59},
	{"HK", "Hong Kong", "AS", 22.4, 114.1},
	{"HM", "Heard Island and McDonald Islands", "AN", -53.1, 73.5},
	{"HN", "Honduras", "NA", 14.8, -86.6},
	{"HR", "Croatia", "EU", 45.1, 16.4},
	{"HT", "Haiti", "NA", 18.9, -72.7},
	{"HU", "Hungary", "EU", 47.2, 19.4},
	{"ID", "Indonesia", "AS", -2.2, 117.3},
	{"IE", "Ireland", "EU", 53.2, -8.1},
	{"IL", "Israel", "AS", 31.5, 35},
	{"IM", "Isle of Man", "EU", 54.2, -4.5},
	{"IN", "India", "AS", 22.9, 79.6},
	{"IO", "British Indian Ocean Territory", "AS", -7.3, 72.4},
	{"IQ", "Iraq", "AS", 33, 43.7},
	{"IR", "Iran", "AS", 32.6, 54.3},
	{"IS", "Iceland", "EU", 65, -18.6},
	{"IT", "Italy", "EU", 42.8, 12.1},
	{"JE", "Jersey", "EU", 49.2, -2.1},
	{"JM", "Jamaica", "NA", 18.2, -77.3},
	{"JO", "Jordan", "AS", 31.2, 36.8},
	{"JP", "Japan", "AS", 37.6, 138},
	{"KE", "Kenya", "AF", 0.6, 37.8},
	{"KG", "Kyrgyzstan", "AS", 41.5, 74.6},
	{"KH", "Cambodia", "AS", 12.7, 104.9},
	{"KI", "Kiribati", "OC", 1.4, 173},
	{"KM", "Comoros", "AF", -11.9, 43.7},
	{"KN", "Saint Kitts and Nevis", "NA", 17.3, -62.7},
	{"KP", "North Korea", "AS", 40.2, 127.2},
	{"KR", "South Korea", "AS", 36.4, 127.8},
	{"KW", "Kuwait", "AS", 29.3, 47.6},
	{"KY", "Cayman Islands", "NA", 19.4, -80.9},
	{"KZ", "Kazakhstan", "AS", 48.2, 67.3},
	{"LA", "Laos", "AS", 18.5, 103.7},
	{"LB", "Lebanon", "AS", 33.9, 35.9},
	{"LC", "Saint Lucia", "NA", 13.9, -61},
	{"LI", "Liechtenstein", "EU", 47.1, 9.5},
	{"LK", "Sri Lanka", "AS", 7.6, 80.7},
	{"LR", "Liberia", "AF", 6.5, -9.3},
	{"LS", "Lesotho", "AF", -29.6, 28.2},
	{"LT", "Lithuania", "EU", 55.3, 23.9},
	{"LU", "Luxembourg", "EU", 49.8, 6.1},
	{"LV", "Latvia", "EU", 56.9, 24.9},
	{"LY", "Libya", "AF", 27, 18},
	{"MA", "Morocco", "AF", 31.9, -6.3},
	{"MC", "Monaco", "EU", 43.7, 7.4},
	{"MD", "Moldova", "EU", 47.2, 28.5},
	{"ME", "Montenegro", "EU", 42.8, 19.2},
	{"MF", "Saint Martin", "NA", 18.1, -63.1},
	{"MG", "Madagascar", "AF", -19.4, 46.7},
	{"MH", "Marshall Islands", "OC", 7.1, 171.1},
	{"MK", "North Macedonia", "EU", 41.6, 21.7},
	{"ML", "Mali", "AF", 17.3, -3.5},
	{"MM", "Myanmar", "AS", 21.2, 96.5},
	{"MN", "Mongolia", "AS", 46.8, 103.1},
	{"MO", "Macao", "AS", 22.2, 113.6},
	{"MP", "Northern Mariana Islands", "OC", 15.2, 145.7},
	{"MQ", "Martinique", "NA", 14.7, -61},
	{"MR", "Mauritania", "AF", 20.3, -10.3},
	{"MS", "Montserrat", "NA", 16.7, -62.2},
	{"MT", "Malta", "EU", 35.9, 14.4},
	{"MU", "Mauritius", "AF", -20.3, 57.6},
	{"MV", "Maldives", "AS", 3.7, 73.2},
	{"MW", "Malawi", "AF", -13.2, 34.3},
	{"MX", "Mexico", "NA", 23.9, -102.5},
	{"MY", "Malaysia", "AS", 3.8, 109.7},
	{"MZ", "Mozambique", "AF", -17.3, 35.5},
	{"NA", "Namibia", "AF", -22.1, 17.2},
	{"NC", "New Caledonia", "OC", -21.3, 165.7},
	{"NE", "Niger", "AF", 17.4, 9.4},
	{"NF", "Norfolk Island", "OC", -29, 167.9},
	{"NG", "Nigeria", "AF", 9.6, 8.1},
	{"NI", "Nicaragua", "NA", 12.8, -85},
	{"NL", "Netherlands", "EU", 52.1, 5.3},
	{"NO", "Norway", "EU", 64.5, 13},
	{"NP", "Nepal", "AS", 28.2, 83.9},
	{"NR", "Nauru", "OC", -0.5, 166.9},
	{"NU", "Niue", "OC", -19, -169.9},
	{"NZ", "New Zealand", "OC", -41.8, 172.8},
	{"OM", "Oman", "AS", 20.6, 56.1},
	{"PA", "Panama", "NA", 8.5, -80.1},
	{"PE", "Peru", "SA", -9.2, -74.4},
	{"PF", "French Polynesia", "OC", -17.7, -149.4},
	{"PG", "Papua New Guinea", "OC", -6.5, 145.2},
	{"PH", "Philippines", "AS", 11.8, 122.9},
	{"PK", "Pakistan", "AS", 29.9, 69.3},
	{"PL", "Poland", "EU", 52.1, 19.4},
	{"PM", "Saint Pierre and Miquelon", "NA", 46.9, -56.3},
	{"PN", "Pitcairn", "OC", -25.1, -130.1},
	{"PR", "Puerto Rico", "NA", 18.2, -66.5},
	{"PS", "Palestine", "AS", 31.9, 35.2},
	{"PT", "Portugal", "EU", 39.6, -8.5},
	{"PW", "Palau", "OC", 7.3, 134.4},
	{"PY", "Paraguay", "SA", -23.2, -58.4},
	{"QA", "Qatar", "AS", 25.3, 51.2},
	{"RE", "Réunion", "AF", -21.1, 55.5},
	{"RO", "Romania", "EU", 45.9, 25},
	{"RS", "Serbia", "EU", 44.2, 20.8},
	{"RU", "Russia", "EU", 61.9, 96.7},
	{"RW", "Rwanda", "AF", -2, 29.9},
	{"SA", "Saudi Arabia", "AS", 24.1, 44.5},
	{"SB", "Solomon Islands", "OC", -8.9, 159.6},
	{"SC", "Seychelles", "AF", -4.7, 55.5},
	{"SD", "Sudan", "AF", 16, 30},
	{"SE", "Sweden", "EU", 62.8, 16.7},
	{"SG", "Singapore", "AS", 1.4, 103.8},
	{"SH", "Saint Helena", "AF", -16, -5.7},
	{"SI", "Slovenia", "EU", 46.1, 14.8},
	{"SJ", "Svalbard and Jan Mayen", "EU", 78.8, 18.4},
	{"SK", "Slovakia", "EU", 48.7, 19.5},
	{"SL", "Sierra Leone", "AF", 8.6, -11.8},
	{"SM", "San Marino", "EU", 43.9, 12.5},
	{"SN", "Senegal", "AF", 14.4, -14.5},
	{"SO", "Somalia", "AF", 4.8, 45.7},
	{"SR", "Suriname", "SA", 4.1, -55.9},
	{"SS", "South Sudan", "AF", 7.3, 30.2},
	{"ST", "São Tomé and Príncipe", "AF", 0.4, 6.7},
	{"SV", "El Salvador", "NA", 13.7, -88.9},
	{"SX", "Sint Maarten", "NA", 18, -63.1},
	{"SY", "Syria", "AS", 35, 38.5},
	{"SZ", "Eswatini", "AF", -26.6, 31.5},
	{"TC", "Turks and Caicos Islands", "NA", 21.8, -71.8},
	{"TD", "Chad", "AF", 15.3, 18.6},
	{"TF", "French Southern Territories", "AN", -49.3, 69.6},
	{"TG", "Togo", "AF", 8.5, 1},
	{"TH", "Thailand", "AS", 15.1, 101},
	{"TJ", "Tajikistan", "AS", 38.5, 71},
	{"TK", "Tokelau", "OC", -9.2, -171.9},
	{"TL", "Timor-Leste", "AS", -8.8, 125.8},
	{"TM", "Turkmenistan", "AS", 39.1, 59.4},
	{"TN", "Tunisia", "AF", 34.1, 9.6},
	{"TO", "Tonga", "OC", -21.2, -175.2},
	{"TR", "Türkiye", "AS", 39.1, 35.2},
	{"TT", "Trinidad and Tobago", "NA", 10.5, -61.3},
	{"TV", "Tuvalu", "OC", -8.5, 179.2},
	{"TW", "Taiwan", "AS", 23.8, 121},
	{"TZ", "Tanzania", "AF", -6.3, 34.8},
	{"UA", "Ukraine", "EU", 49, 31.4},
	{"UG", "Uganda", "AF", 1.3, 32.4},
	{"UM", "United States Minor Outlying Islands", "OC", 19.3, 166.6},
	{"US", "United States", "NA", 39.5, -98.5},
	{"UY", "Uruguay", "SA", -32.8, -56},
	{"UZ", "Uzbekistan", "AS", 41.8, 63.1},
	{"VA", "Vatican City", "EU", 41.9, 12.5},
	{"VC", "Saint Vincent and the Grenadines", "NA", 13.2, -61.2},
	{"VE", "Venezuela", "SA", 7.1, -66.2},
	{"VG", "British Virgin Islands", "NA", 18.4, -64.6},
	{"VI", "United States Virgin Islands", "NA", 18.1, -64.8},
	{"VN", "Vietnam", "AS", 16.6, 106.3},
	{"VU", "Vanuatu", "OC", -16.2, 167.7},
	{"WF", "Wallis and Futuna", "OC", -13.3, -176.2},
	{"WS", "Samoa", "OC", -13.8, -172.2},
	{"YE", "Yemen", "AS", 15.9, 47.6},
	{"YT", "Mayotte", "AF", -12.8, 45.1},
	{"ZA", "South Africa", "AF", -29, 25.1},
	{"ZM", "Zambia", "AF", -13.5, 27.8},
	{"ZW", "Zimbabwe", "AF", -19, 29.9},
}

// otherNames are what people write instead of a code or the name above, in lower
// case.
var otherNames = map[string]string{
	"uk": "GB", "great britain": "GB", "england": "GB", "scotland": "GB", "wales": "GB", "northern ireland": "GB", "gbr": "GB",
	"usa": "US", "united states of america": "US", "america": "US", "u.s.": "US", "u.s.a.": "US",
	"el": "GR", "hellas": "GR",
	"deutschland": "DE", "deu": "DE", "holland": "NL", "the netherlands": "NL", "españa": "ES", "italia": "IT",
	"brasil": "BR", "méxico": "MX", "polska": "PL", "österreich": "AT", "schweiz": "CH", "suisse": "CH", "norge": "NO",
	"sverige": "SE", "suomi": "FI", "danmark": "DK",
	"czech republic": "CZ", "slovak republic": "SK", "republic of moldova": "MD", "macedonia": "MK",
	"russian federation": "RU", "turkey": "TR", "turkiye": "TR",
	"korea": "KR", "republic of korea": "KR", "korea, republic of": "KR", "south-korea": "KR",
	"viet nam": "VN", "iran, islamic republic of": "IR", "islamic republic of iran": "IR",
	"taiwan, province of china": "TW", "republic of china": "TW", "people's republic of china": "CN", "hong kong sar": "HK", "macau": "MO",
	"uae": "AE", "burma": "MM", "brunei darussalam": "BN", "lao pdr": "LA", "syrian arab republic": "SY",
	"tanzania, united republic of": "TZ", "ivory coast": "CI", "cabo verde": "CV", "swaziland": "SZ",
	"democratic republic of the congo": "CD", "republic of the congo": "CG",
	"bolivia, plurinational state of": "BO", "venezuela, bolivarian republic of": "VE", "the bahamas": "BS", "the gambia": "GM",
	"reunion": "RE", "curacao": "CW", "aland islands": "AX", "cote d'ivoire": "CI", "vatican": "VA", "holy see": "VA",
	"east timor": "TL", "palestinian territory": "PS",
}

var continents = []struct{ code, name string }{
	{"AF", "Africa"}, {"AN", "Antarctica"}, {"AS", "Asia"}, {"EU", "Europe"},
	{"NA", "North America"}, {"OC", "Oceania"}, {"SA", "South America"},
}

// A disc is a part of a country: everything within radius km of a position.
type disc struct{ lat, lon, radius float64 }

// smallCountry is the radius in km of the disc around its middle that a country
// without an entry in extents fits into.
const smallCountry = 400

// extents cover the countries that are large or scattered. They only have to be
// right within the margin of the rule that uses them, 1,000 km.
var extents = map[string][]disc{
	"AQ": {{-90, 0, 3500}},
	"AR": {{-28, -63, 900}, {-42, -68, 900}, {-53, -68, 400}},
	"AU": {{-25.6, 134.5, 2100}, {-42, 147, 300}, {-54.6, 158.9, 50}},
	"BO": {{-16.7, -64.7, 800}},
	"BR": {{-5, -60, 1500}, {-8, -42, 1100}, {-23, -50, 1200}, {-20.5, -29.3, 50}},
	"CA": {{50, -120, 1000}, {52, -98, 1100}, {48, -75, 1000}, {49, -60, 800}, {65, -125, 1300}, {72, -90, 1500}},
	"CD": {{-2.9, 23.6, 1200}},
	"CL": {{-24, -69.5, 800}, {-38, -72, 900}, {-51, -73, 700}, {-27.1, -109.4, 100}},
	"CN": {{40, 85, 1300}, {33, 92, 1200}, {30, 112, 1200}, {46, 125, 1000}, {22, 110, 700}},
	"CO": {{3.9, -73.1, 1000}},
	"DZ": {{28.2, 2.6, 1200}},
	"EC": {{-1.4, -78.8, 450}, {-0.6, -90.4, 200}},
	"EG": {{26.5, 29.9, 800}},
	"ES": {{40.2, -3.6, 800}, {28.3, -15.8, 400}},
	"ET": {{8.6, 39.6, 900}},
	"FI": {{64.5, 26.3, 700}},
	"FM": {{6.9, 158.2, 700}, {8, 146, 900}},
	"FR": {{46.6, 2.5, 700}},
	"GB": {{54.1, -2.9, 750}},
	"GL": {{72, -41, 1500}},
	"ID": {{-1, 103, 1000}, {-4, 115, 1000}, {-3, 130, 1300}},
	"IN": {{28, 76, 900}, {18, 78, 1000}, {26, 92, 600}, {10, 93, 500}},
	"IR": {{32.6, 54.3, 1100}},
	"JP": {{37.6, 138, 1100}, {26.5, 127.8, 500}, {26, 142, 500}},
	"KI": {{1.4, 173, 600}, {-3, -171.5, 500}, {0, -157, 900}},
	"KZ": {{48.2, 67.3, 1600}},
	"LY": {{27, 18, 900}},
	"ML": {{17.3, -3.5, 900}},
	"MN": {{46.8, 103.1, 1200}},
	"MX": {{23.9, -102.5, 1800}},
	"MY": {{3.8, 102, 500}, {4, 114.5, 600}},
	"MZ": {{-17.3, 35.5, 1000}},
	"NO": {{61, 9, 500}, {67, 15, 600}, {70, 26, 400}},
	"NZ": {{-41.8, 172.8, 900}, {-43.9, -176.5, 100}},
	"PE": {{-9.2, -74.4, 1100}},
	"PF": {{-17.7, -149.4, 900}, {-9, -139.5, 400}, {-23, -135, 300}},
	"PG": {{-6.5, 145.2, 1000}},
	"PH": {{11.8, 122.9, 900}},
	"PK": {{29.9, 69.3, 900}},
	"PT": {{39.6, -8.5, 350}, {32.7, -17, 100}, {38.5, -28, 400}},
	"RU": {{57, 40, 1500}, {60, 65, 1400}, {63, 95, 1500}, {62, 130, 1600}, {55, 145, 1500}, {65, 165, 1200}, {54.7, 20.5, 100}},
	"SA": {{24.1, 44.5, 1000}},
	"SD": {{16, 30, 900}},
	"SE": {{62.8, 16.7, 800}},
	"SH": {{-16, -5.7, 200}, {-7.9, -14.4, 50}, {-37.1, -12.3, 200}},
	"SJ": {{78.8, 18.4, 400}, {71, -8.3, 100}},
	"SO": {{4.8, 45.7, 1000}},
	"TD": {{15.3, 18.6, 900}},
	"TF": {{-49.3, 69.6, 400}, {-46.4, 51.8, 300}, {-38, 77.5, 200}},
	"TH": {{15.1, 101, 900}},
	"TR": {{39.1, 35.2, 850}},
	"UM": {{19.3, 166.6, 50}, {28.2, -177.4, 50}, {16.7, -169.5, 50}, {0.2, -176.5, 200}, {-0.4, -160, 50}, {6, -162, 200}},
	"US": {{39.5, -98.5, 2400}, {63, -153, 1600}, {52.5, -175, 900}, {58, -134, 800}, {20.8, -157.5, 500}},
	"VN": {{16.6, 106.3, 1000}},
	"ZA": {{-29, 25.1, 1000}, {-46.8, 37.8, 100}},
}

// byCode returns the country of a code in capitals.
func byCode(code string) (country, bool) {
	i, ok := slices.BinarySearchFunc(countries[:], code, func(c country, code string) int { return strings.Compare(c.code, code) })
	if !ok {
		return country{}, false
	}
	return countries[i], true
}

// ValidCountry tells whether code is a country's ISO 3166-1 alpha-2 code, in
// capitals.
func ValidCountry(code string) bool {
	_, ok := byCode(code)
	return ok
}

// CountryName returns the English name of the country with that code, or "".
func CountryName(code string) string {
	c, _ := byCode(code)
	return c.name
}

// Continent returns the two-letter code of the continent of a country ("EU" for
// "RU", "AS" for "TR"), or "".
func Continent(code string) string {
	c, _ := byCode(code)
	return c.continent
}

// Centroid returns the middle of the country with that code, in degrees.
func Centroid(code string) (lat, lon float64, ok bool) {
	c, ok := byCode(code)
	return c.lat, c.lon, ok
}

// outside returns how many km a position is outside the country, roughly; 0 for
// one inside, or for an unknown country.
func outside(code string, lat, lon float64) float64 {
	c, ok := byCode(code)
	if !ok {
		return 0
	}
	parts := extents[code]
	if parts == nil {
		parts = []disc{{c.lat, c.lon, smallCountry}}
	}
	nearest := -1.0
	for _, p := range parts {
		if d := max(0, Distance(lat, lon, p.lat, p.lon)-p.radius); nearest < 0 || d < nearest {
			nearest = d
		}
	}
	return nearest
}

// countryCode returns the code of what people write for a country: the code in
// small letters, its name, or another name of it.
func countryCode(s string) (code string, ok bool) {
	word := strings.ToLower(strings.TrimSpace(s))
	if code, ok := otherNames[word]; ok {
		return code, true
	}
	if code := strings.ToUpper(word); ValidCountry(code) {
		return code, true
	}
	for _, c := range countries {
		if strings.EqualFold(c.name, word) {
			return c.code, true
		}
	}
	return "", false
}

// continentCode returns the code of what people write for a continent.
func continentCode(s string) (code string, ok bool) {
	for _, c := range continents {
		if strings.EqualFold(c.code, s) || strings.EqualFold(c.name, s) {
			return c.code, true
		}
	}
	return "", false
}
