package catalog

import (
	"slices"
	"strings"
	"unicode"
)

// This file has the words of Apple's article in the languages that Import knows:
// column heads, section headings, proxy marks and months. They are names and
// single words, not sentences. An article in another language imports by its
// structure alone. This file has no host names.

// A column is what a column of the article's tables says.
type column int

const (
	colHost column = iota
	colPorts
	colTransports
	colSystems
	colPurpose
	colProxy
	numColumns
)

// columns has the heads of the tables' columns, folded.
var columns = map[string]column{}

// columnWords are the heads in English, Swedish, German, French, Spanish,
// Italian, Dutch, Japanese, Chinese, Portuguese, Danish, Norwegian, Finnish,
// Polish and Czech, separated by bars.
var columnWords = [numColumns]string{
	colHost: "hosts|host|host name|hostname|servrar|värdar|server|hostnamen|hôtes|hôte|nom d'hôte|servidores|servidor|hosts|anfitriones|nombre de host|" +
		"host|nomi host|hosts|ホスト|ホスト名|主机|主機|主机名|domínios|hospedeiros|værter|værtsnavn|verter|vertsnavn|isännät|palvelimet|isäntä|isäntänimi|hosty|host|hosty (serwery)|hostitelé|hostitel",
	colPorts: "ports|port|portar|puertos|puerto|porte|porta|poorten|poort|ポート|端口|埠|連接埠|通訊埠|portas|porte|porter|portit|portti|porty",
	colTransports: "protocol|protocols|protokoll|protokolle|protocole|protocoles|protocolo|protocolos|protocollo|protocolli|protocollen|プロトコル|协议|通訊協定|協定|" +
		"protokol|protokoller|protokolla|yhteyskäytäntö|protokół|protokoły|protokoly",
	colSystems: "os|operating system|operating systems|operativsystem|betriebssystem|betriebssysteme|système d'exploitation|système|se|so|sistema operativo|sistemas operativos|" +
		"sistemi operativi|besturingssysteem|besturingssystemen|オペレーティングシステム|操作系统|作業系統|sistema operacional|operativsystemer|operativsystem|käyttöjärjestelmä|käyttöjärjestelmät|system operacyjny|system|systemy|operační systém",
	colPurpose: "description|beskrivning|beschreibung|description|descripción|descrizione|beschrijving|omschrijving|説明|描述|说明|說明|descrição|beskrivelse|beskrivelse|kuvaus|opis|popis",
	colProxy: "supports proxies|proxy support|supports proxy|proxies|proxy|stöd för proxyservrar|stöd för proxy|proxyunterstützung|proxy-unterstützung|unterstützt proxys|unterstützung für proxys|" +
		"prise en charge des proxys|prise en charge de proxys|prend en charge les proxys|prise en charge des serveurs proxy|compatible con proxies|admite proxies|compatibilidad con proxies|admite proxy|" +
		"supporta proxy|supporto proxy|supporto per proxy|supporta i proxy|ondersteunt proxy's|proxyondersteuning|ondersteuning voor proxy's|プロキシのサポート|プロキシ対応|プロキシサポート|プロキシへの対応|" +
		"支持代理|代理支持|支援代理伺服器|支援 proxy|suporta proxies|suporte a proxies|compatível com proxies|suporte a proxy|understøtter proxyservere|understøttelse af proxyer|understøtter proxyer|proxyunderstøttelse|" +
		"støtte for proxyer|støtter proxyer|støtter proxy-tjenere|proxystøtte|tukee välityspalvelimia|välityspalvelintuki|välityspalvelinten tuki|obsługa serwerów proxy|obsługuje serwery proxy|obsługa proxy|" +
		"podpora proxy serverů|podporuje proxy servery|podpora proxy|podpora serverů proxy",
}

// proxyWords are parts of the last column's head in any language that writes
// "proxy" in one of these ways.
var proxyWords = []string{"prox", "proks", "プロキシ", "代理", "프록시", "прокс", "välityspalvel", "وكيل", "بروكسي", "πρόξ", "μεσολάβ", "вильн", "พร็อกซ"}

// protocolWords are parts of the third column's head.
var protocolWords = []string{"protoco", "protoko", "protokó", "protoc", "プロトコル", "协议", "協定", "協議", "프로토콜", "протокол", "πρωτόκολλ", "بروتوكول", "פרוטוקול", "โปรโตคอล", "giao thức"}

// yesWords and noWords are cells of the last column, folded.
var (
	yesWords = wordSet("yes ja oui sí si sì はい 対応 可 あり ○ 是 支持 有 sim kyllä on tak ano igen evet да так 예 지원 ναι da áno نعم כן có ya ✓ ✔ ✔️ ✅ x")
	noWords  = wordSet("no nej nein non いいえ 非対応 不可 なし × 否 不支持 无 無 nee não nei ei nie ne nem hayır нет ні 아니요 όχι nu لا לא không tidak ✗ ✘ ❌ n/a")
)

// andWords are between the items of a list, onlyWords beside a system.
var (
	andWords  = wordSet("and och und et y e en og ja i a oraz sowie & or eller oder ou o u of tai lub nebo és ve ja и 和 及 与 與 および 及び と 또는 및 і και ו و dan și va")
	onlyWords = wordSet("only endast nur uniquement seulement solo sólo solamente alleen のみ だけ 仅 仅限 僅 僅限 apenas somente kun bare vain tylko pouze jen csak yalnızca sadece только 만 лише тільки μόνο")
)

func wordSet(s string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(s) {
		set[w] = true
	}
	return set
}

// A section is a part of the article.
type section struct {
	name    string // English
	service string // empty: a part that has no table
}

// sections has the article's headings, folded, the older and newer ones, in
// each language.
var sections = map[string]section{}

// sectionWords are the headings of each section, separated by bars, in the
// languages of columnWords, where they differ from the English name.
var sectionWords = []struct {
	section
	others string
}{
	{section{"Apple Push Notifications", Push}, "Apples pushnotiser|Apple-Push-Benachrichtigungen|Notifications push d'Apple|Notificaciones push de Apple|Notifiche push Apple|Apple pushmeldingen|" +
		"Apple プッシュ通知|Apple 推送通知|Notificações push da Apple|Apples push-meddelelser|Apples push-varslinger|Applen push-ilmoitukset|Powiadomienia push Apple|Push oznámení Apple"},
	{section{"Device setup", "device-setup"}, "Enhetsinställning|Enhetsinställningar|Geräteeinrichtung|Gerätekonfiguration|Configuration des appareils|Configuration de l'appareil|Configuración de dispositivos|Configuración del dispositivo|" +
		"Configurazione dei dispositivi|Configurazione dispositivo|Configurazione del dispositivo|Apparaatconfiguratie|Apparaat configureren|Configuratie van apparaten|デバイスの設定|デバイス設定|设备设置|裝置設定|" +
		"Configuração do dispositivo|Configuração de dispositivos|Indstilling af enheder|Enhedsindstilling|Enhetskonfigurasjon|Konfigurering av enheter|Laitteen käyttöönotto|Laitteiden käyttöönotto|" +
		"Konfiguracja urządzenia|Konfiguracja urządzeń|Nastavení zařízení"},
	{section{"Device management", "device-management"}, "Enhetshantering|Geräteverwaltung|Gestion des appareils|Gestión de dispositivos|Administración de dispositivos|Gestione dei dispositivi|Gestione dispositivi|Apparaatbeheer|" +
		"デバイス管理|デバイスの管理|设备管理|裝置管理|Gerenciamento de dispositivos|Gestão de dispositivos|Enhedsadministration|Enhetsadministrering|Enhetsbehandling|Laitehallinta|Laitteiden hallinta|Zarządzanie urządzeniami|Správa zařízení"},
	{section{"Apple Business Manager and Apple School Manager", "business-school"}, "Apple School Manager and Apple Business Manager|" +
		"Apple Business Manager och Apple School Manager|Apple School Manager och Apple Business Manager|Apple School Manager och Apple Business|" +
		"Apple School Manager and Apple Business|Apple Business and Apple School Manager|Apple Business|Apple Business Manager|Apple School Manager|" +
		"Apple Business Manager und Apple School Manager|Apple School Manager und Apple Business Manager|Apple Business Manager et Apple School Manager|Apple School Manager et Apple Business Manager|" +
		"Apple Business Manager y Apple School Manager|Apple School Manager y Apple Business Manager|Apple Business Manager e Apple School Manager|Apple School Manager e Apple Business Manager|" +
		"Apple Business Manager en Apple School Manager|Apple School Manager en Apple Business Manager|Apple Business Manager と Apple School Manager|Apple School Manager と Apple Business Manager|Apple Business Manager および Apple School Manager|" +
		"Apple 商务管理和 Apple 校园教务管理|Apple 校园教务管理和 Apple 商务管理|Apple Business Manager 和 Apple School Manager|Apple 商務管理和 Apple 校務管理|Apple Business Manager og Apple School Manager|Apple School Manager og Apple Business Manager|" +
		"Apple Business Manager ja Apple School Manager|Apple School Manager ja Apple Business Manager|Apple Business Manager i Apple School Manager|Apple School Manager i Apple Business Manager|" +
		"Apple Business Manager a Apple School Manager|Apple School Manager a Apple Business Manager|" +
		"Administrators and managers|Administratörer och chefer|Administratoren und Manager|Administrateurs et gestionnaires|Administradores y gestores|Administradores y responsables|Amministratori e manager|Beheerders en managers|" +
		"管理者とマネージャ|管理者とマネージャー|管理员和经理|管理員和經理|Administradores e gerentes|Administratorer og ledere|Administratorer og chefer|Administratorer og administratorer|Ylläpitäjät ja esimiehet|Administratorzy i menedżerowie|Správci a manažeři|" +
		"Employees and students|Anställda och elever|Medarbetare och elever|Mitarbeiter und Schüler|Mitarbeitende und Lernende|Employés et étudiants|Employés et élèves|Empleados y estudiantes|Empleados y alumnos|Dipendenti e studenti|" +
		"Medewerkers en leerlingen|Medewerkers en studenten|従業員と学生|従業員と生徒|员工和学生|員工和學生|Funcionários e alunos|Colaboradores e alunos|Medarbejdere og elever|Medarbejdere og studerende|Ansatte og elever|Ansatte og studenter|" +
		"Työntekijät ja opiskelijat|Pracownicy i uczniowie|Pracownicy i studenci|Zaměstnanci a studenti"},
	{section{"Apple Business Essentials device management", "business-essentials"}, "Apple Business Essentials|Apple Business Essentials-enhetshantering|Enhetshantering i Apple Business Essentials|Apple Business device management|" +
		"Geräteverwaltung mit Apple Business Essentials|Apple Business Essentials-Geräteverwaltung|Gestion des appareils Apple Business Essentials|Gestion des appareils avec Apple Business Essentials|" +
		"Gestión de dispositivos de Apple Business Essentials|Gestión de dispositivos con Apple Business Essentials|Gestione dei dispositivi Apple Business Essentials|Apparaatbeheer met Apple Business Essentials|" +
		"Apple Business Essentials によるデバイス管理|Apple Business Essentials のデバイス管理|Apple Business Essentials 设备管理|Gerenciamento de dispositivos do Apple Business Essentials|" +
		"Enhedsadministration i Apple Business Essentials|Enhetsadministrering i Apple Business Essentials|Apple Business Essentials -laitehallinta|Zarządzanie urządzeniami w Apple Business Essentials|Správa zařízení Apple Business Essentials"},
	{section{"Classroom and Schoolwork", "classroom"}, "Klassrum och Skolarbete|Classroom und Schoolwork|En classe et Pour l'école|Classroom et Schoolwork|Aula y Tareas|Aula y Schoolwork|Classroom y Schoolwork|In classe e Compiti|Classroom e Schoolwork|" +
		"Klaslokaal en Schoolwerk|Klas en Schoolwerk|Classroom en Schoolwork|クラスルームとスクールワーク|课堂和课业|課堂和課業|Sala de Aula e Trabalho Escolar|Sala de Aula e Schoolwork|Klasseværelse og Skolearbejde|Klasserom og Skolearbeid|" +
		"Luokkahuone ja Koulutyö|Klasa i Schoolwork|Klasa i Zadania|Classroom i Schoolwork|Classroom og Schoolwork|Classroom ja Schoolwork|Classroom a Schoolwork|Učebna a Školní práce"},
	{section{"Software updates", "software-update"}, "Mjukvaruuppdateringar|Programuppdateringar|Softwareupdates|Software-Updates|Softwareaktualisierungen|Mises à jour logicielles|Mises à jour de logiciels|Actualizaciones de software|Aggiornamenti software|" +
		"Software-updates|ソフトウェアアップデート|ソフトウェア・アップデート|软件更新|軟體更新|軟件更新|Atualizações de software|Softwareopdateringer|Programvareoppdateringer|Programoppdateringer|Ohjelmistopäivitykset|Uaktualnienia oprogramowania|Aktualizacje oprogramowania|Aktualizace softwaru"},
	{section{"App Store", "app-store"}, ""},
	{section{"Carrier updates", "carrier"}, "Uppdateringar från operatör|Operatörsuppdateringar|Mobilfunkanbieter-Updates|Netzbetreiber-Updates|Mobilfunknetz-Updates|Mises à jour de l'opérateur|Mises à jour de l'opérateur mobile|Mises à jour opérateur|Actualizaciones del operador|" +
		"Actualizaciones de operadores|Aggiornamenti operatore|Aggiornamenti dell'operatore|Aggiornamenti gestore|Updates van aanbieders|Aanbiederupdates|Providerupdates|キャリアアップデート|通信事業者のアップデート|通信事業者アップデート|运营商更新|電信業者更新|" +
		"Atualizações de operadora|Atualizações da operadora|Operatøropdateringer|Operatøroppdateringer|Operaattoripäivitykset|Uaktualnienia operatora|Aktualizacje operatora|Aktualizace operátora"},
	{section{"Content caching", "content-caching"}, "Innehållscachning|Innehållscachelagring|Inhaltscaching|Inhalts-Caching|Mise en cache de contenu|Mise en cache des contenus|Almacenamiento en caché de contenido|Almacenamiento en caché de contenidos|" +
		"Caching dei contenuti|Cache dei contenuti|Materiaalcaching|Inhoudscaching|Caching van materiaal|コンテンツキャッシュ|コンテンツキャッシング|内容缓存|內容快取|Cache de conteúdo|Armazenamento de conteúdo em cache|Bufring af indhold|Buffring af indhold|" +
		"Indholdsbuffring|Innholdsbufring|Buffring av innhold|Sisällön välimuisti|Sisällön tallentaminen välimuistiin|Buforowanie zawartości|Buforowanie treści|Ukládání obsahu do mezipaměti|Ukládání obsahu do cache"},
	{section{"App features", "app-features"}, "Appfunktioner|App-Funktionen|Fonctionnalités d'app|Fonctionnalités des apps|Funciones de las apps|Funciones de apps|Funzioni delle app|Funzionalità delle app|Appfuncties|App の機能|アプリの機能|App 功能|Recursos de apps|" +
		"Recursos do app|Funcionalidades das apps|App-funktioner|Appfunksjoner|App-funksjoner|Appien ominaisuudet|Appiominaisuudet|Funkcje aplikacji|Funkce aplikací"},
	{section{"Beta updates", "beta"}, "Betauppdateringar|Feedback Assistant|Feedbackassistent|Beta-Updates|Betaupdates|Mises à jour bêta|Actualizaciones beta|Aggiornamenti beta|Bèta-updates|Bèta updates|ベータアップデート|ベータ版のアップデート|ベータ版アップデート|" +
		"Beta 版更新|Beta 更新|Atualizações beta|Betaopdateringer|Betaoppdateringer|Betapäivitykset|Beetapäivitykset|Uaktualnienia beta|Aktualizacje beta|Beta aktualizace|Betaverze aktualizací"},
	{section{"Apple Diagnostics", "diagnostics"}, "Apple Diagnose|Apple-Diagnose|Diagnostic Apple|Diagnostics Apple|Diagnóstico Apple|Diagnóstico de Apple|Diagnosi Apple|Apple diagnose|Apple Diagnostics|Apple 診断|Apple 诊断|Apple 診斷|Diagnóstico da Apple|" +
		"Diagnósticos da Apple|Apple Diagnosticering|Apple-diagnostik|Apple Diagnostik|Apple-diagnostikk|Apple-diagnose|Apple-diagnostiikka|Diagnostyka Apple|Diagnostika Apple"},
	{section{"DNS resolution", "dns"}, "Domain Name System resolution|DNS-konvertering|DNS-Auflösung|Domain-Name-System-Auflösung|Résolution DNS|Résolution du système de noms de domaine|Resolución de DNS|Resolución DNS|Resolución del sistema de nombres de dominio|" +
		"Risoluzione DNS|DNS-omzetting|DNS-resolutie|DNS の名前解決|DNS 解決|DNS の解決|ドメインネームシステムの解決|DNS 解析|域名系统解析|網域名稱系統解析|Resolução de DNS|Resolução DNS|DNS-opløsning|DNS-oversættelse|DNS-oppslag|DNS-nimenselvitys|DNS-selvitys|" +
		"Rozpoznawanie nazw DNS|Rozpoznawanie DNS|Rozwiązywanie nazw DNS|Překlad DNS|Rozlišení DNS"},
	{section{"Certificate validation", "certificates"}, "Certifikatvalidering|Zertifikatsvalidierung|Zertifikatvalidierung|Zertifikatüberprüfung|Validation de certificat|Validation des certificats|Validation du certificat|Validación de certificados|" +
		"Convalida dei certificati|Convalida certificato|Convalida dei certificati|Certificaatvalidatie|Validatie van certificaten|証明書の検証|证书验证|憑證驗證|Validação de certificado|Validação de certificados|Certifikatgodkendelse|Godkendelse af certifikater|" +
		"Sertifikatvalidering|Varmenteiden vahvistaminen|Varmenteiden tarkistus|Varmenteen tarkistus|Weryfikacja certyfikatów|Sprawdzanie poprawności certyfikatów|Walidacja certyfikatów|Ověřování certifikátů|Ověření certifikátu"},
	{section{"Apple ID", "apple-account"}, "Apple-ID|Identifiant Apple|ID de Apple|ID Apple|Apple-id|Apple ID-tili|Identyfikator Apple ID"},
	{section{"Apple Account", "apple-account"}, "Apple-konto|Compte Apple|Cuenta de Apple|Cuenta Apple|Account Apple|Apple-account|Apple アカウント|Apple 账户|Apple 帳號|Apple 帳戶|Conta Apple|Conta da Apple|Apple-tili|Konto Apple|Účet Apple|Apple Account-Dienste"},
	{section{"iCloud", "icloud"}, ""},
	{section{"Siri and search", "siri"}, "Siri och sökning|Siri und Suche|Siri und Suchen|Siri et recherche|Siri y búsqueda|Siri y Buscar|Siri e ricerca|Siri en zoeken|Siri en Zoek|Siri と検索|Siri および検索|Siri 与搜索|Siri 和搜索|Siri 與搜尋|Siri e Busca|Siri e pesquisa|" +
		"Siri og søgning|Siri og søk|Siri ja haku|Siri i wyszukiwanie|Siri a vyhledávání|Siri a hledání"},
	{section{"Apple Intelligence, Siri and Search", "siri"}, "Apple Intelligence, Siri och sökning|Apple Intelligence, Siri und Suche|Apple Intelligence, Siri et recherche|Apple Intelligence, Siri y búsqueda|Apple Intelligence, Siri e ricerca|Apple Intelligence, Siri en zoeken|" +
		"Apple Intelligence、Siri、検索|Apple 智能、Siri 和搜索|Apple Intelligence、Siri 與搜尋|Apple Intelligence, Siri e Busca|Apple Intelligence, Siri og søgning|Apple Intelligence, Siri og søk|Apple Intelligence, Siri ja haku|Apple Intelligence, Siri i wyszukiwanie|Apple Intelligence, Siri a vyhledávání"},
	{section{"Associated Domains", "associated-domains"}, "Associerade domäner|Associated Domains|Zugeordnete Domains|Verknüpfte Domains|Assoziierte Domains|Zugehörige Domains|Domaines associés|Dominios asociados|Domini associati|Bijbehorende domeinen|Gekoppelde domeinen|" +
		"関連ドメイン|関連付けられたドメイン|关联域|关联域名|關聯的網域|Domínios associados|Tilknyttede domæner|Associerede domæner|Tilknyttede domener|Liitetyt domeenit|Liittyvät verkkotunnukset|Domeny powiązane|Powiązane domeny|Přidružené domény"},
	{section{"Tap to Pay on iPhone", "tap-to-pay"}, "Tap to Pay på iPhone|Tap to Pay auf dem iPhone|Tap to Pay auf iPhone|Toucher pour payer sur iPhone|Tap to Pay sur iPhone|Tap to Pay en el iPhone|Tap to Pay en iPhone|Tap to Pay su iPhone|Tap to Pay op iPhone|Tap to Pay op de iPhone|" +
		"iPhone のタッチ決済|iPhone のタッチ決済で支払いを受け付ける|iPhone 上的“轻点支付”|iPhone 上的轻点收款|iPhone 卡緊收|Tap to Pay no iPhone|Tap to Pay iPhonella|Tap to Pay na iPhonie|Tap to Pay na iPhonu"},
	{section{"ID Verifier", "id-verifier"}, "ID Verifier on iPhone|ID Verifier på iPhone|ID Verifier auf dem iPhone|ID Verifier sur iPhone|ID Verifier en el iPhone|ID Verifier su iPhone|ID Verifier op iPhone|iPhone の ID Verifier|iPhone 上的 ID Verifier|ID Verifier no iPhone|ID Verifier iPhonella|ID Verifier na iPhonie|ID Verifier na iPhonu"},
	{section{"Additional content", "additional-content"}, "Ytterligare innehåll|Zusätzliche Inhalte|Weitere Inhalte|Contenu supplémentaire|Contenus supplémentaires|Contenido adicional|Contenuti aggiuntivi|Aanvullend materiaal|Aanvullende inhoud|Extra materiaal|追加コンテンツ|その他のコンテンツ|附加内容|更多内容|其他內容|" +
		"Conteúdo adicional|Yderligere indhold|Ekstra indhold|Tilleggsinnhold|Ekstra innhold|Lisäsisältö|Muu sisältö|Dodatkowe treści|Zawartość dodatkowa|Dodatkowa zawartość|Další obsah|Doplňkový obsah"},
	{section{"Apps and additional content", "additional-content"}, "Appar och ytterligare innehåll|Apps und zusätzliche Inhalte|Apps und weitere Inhalte|Apps et contenu supplémentaire|Apps et contenus supplémentaires|Apps y contenido adicional|App e contenuti aggiuntivi|Apps en aanvullend materiaal|Apps en aanvullende inhoud|" +
		"App と追加コンテンツ|アプリと追加コンテンツ|App 和附加内容|App 和其他内容|App 與其他內容|Apps e conteúdo adicional|Apps og yderligere indhold|Apper og tilleggsinnhold|Apper og ekstra innhold|Apit ja lisäsisältö|Appit ja lisäsisältö|Aplikacje i dodatkowe treści|Aplikacje i dodatkowa zawartość|Aplikace a další obsah"},
	{section{"Firewalls", ""}, "Brandväggar|Firewalls|Pare-feu|Firewall|Cortafuegos|ファイアウォール|防火墙|防火牆|Firewaller|Brannmurer|Palomuurit|Zapory|Zapory sieciowe|Firewally"},
	{section{"HTTP proxy", ""}, "HTTP-proxy|HTTP-proxyserver|Proxy HTTP|HTTP プロキシ|HTTP 代理|HTTP-Proxy|HTTP-välityspalvelin|Serwer proxy HTTP"},
	{section{"Content distribution networks and DNS resolution", ""}, "Content networks and DNS resolution|Nätverk för innehållsdistribution och DNS-konvertering"},
	{section{"Recent changes", ""}, "Nyligen genomförda förändringar|Letzte Änderungen|Kürzliche Änderungen|Modifications récentes|Cambios recientes|Modifiche recenti|Recente wijzigingen|最近の変更|最近更改|Alterações recentes|Mudanças recentes|Seneste ændringer|Nylige endringer|Viimeisimmät muutokset|Ostatnie zmiany|Nedávné změny"},
	{section{"Learn more", ""}, "Läs mer|Weitere Informationen|En savoir plus|Más información|Ulteriori informazioni|Meer informatie|詳細情報|进一步了解|Saiba mais|Flere oplysninger|Finn ut mer|Lisätietoja|Więcej informacji|Další informace"},
}

func init() {
	for c, words := range columnWords {
		for w := range strings.SplitSeq(words, "|") {
			columns[foldWord(w)] = column(c)
		}
	}
	for _, s := range sectionWords {
		sections[foldHeading(s.name)] = s.section
	}
	for _, s := range sectionWords {
		for heading := range strings.SplitSeq(s.others, "|") {
			if key := foldHeading(heading); key != "" {
				if _, ok := sections[key]; !ok {
					sections[key] = s.section
				}
			}
		}
	}
}

// foldWord makes words equal that differ in case, white space, a trailing colon
// or the form of the apostrophe.
func foldWord(s string) string {
	s = strings.ReplaceAll(strings.ToLower(s), "’", "'")
	return strings.Join(strings.Fields(strings.Trim(s, " :*")), " ")
}

// headingWords are the words of a heading in lower case, "and" and the like left
// out.
func headingWords(s string) []string {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
	})
	return slices.DeleteFunc(words, func(w string) bool { return andWords[w] })
}

// foldHeading makes headings that differ in case, commas, hyphens or the
// spelling of "and" equal.
func foldHeading(s string) string { return strings.Join(headingWords(s), " ") }

func lookupSection(s string) (section, bool) {
	sec, ok := sections[foldHeading(s)]
	return sec, ok
}

func lookupColumn(s string) (column, bool) {
	c, ok := columns[foldWord(s)]
	return c, ok
}

// containsAny reports whether s has one of parts in it, whatever the case.
func containsAny(s string, parts []string) bool {
	s = strings.ToLower(s)
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(s, p) })
}

// serviceOf is the service of a row of s. Push has no table of its own in the
// article.
func (s section) serviceOf(host string) string {
	if host == "push.apple.com" || strings.HasSuffix(host, ".push.apple.com") {
		return Push
	}
	return s.service
}

// months are their beginnings in the languages above, from January on.
var months = [12]string{
	"jan gen ene led sty tam",
	"feb fév fev úno lut helmi",
	"mar mär maa bře mrz",
	"apr abr avr kwi dub huh",
	"may maj mai mag mei maio kvě tou toukokuu",
	"jun juin giu čer červen cze kes",
	"jul juil lug červenec července čvc lip hei",
	"aug aoû ago srp sie elo",
	"sep set zář wrz syy",
	"oct okt ott out říj paź lok",
	"nov lis marras",
	"dec dez déc dic pro gru des joulu",
}
